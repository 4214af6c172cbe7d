"""Azure Monitor's names: the answers' kinds, and that the documented PromQL computes what it says."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.observability.azure_metrics import DERIVED, RESPONSE_TYPES, response_type
from agent.observability.metric_families import FAMILIES
from dataplane.blobapi.errors import ErrorCode
from dataplane.blobapi.operations import Operation, api_name

CHECKOUT = Path(__file__).resolve().parents[2]
DASHBOARD = CHECKOUT / "config" / "grafana-dashboard.json"
ALERTS = CHECKOUT / "config" / "alerts.yml"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (0, "", "Unknown"),
        (206, "", "Success"),
        (304, "ConditionNotMet", "ClientOtherError"),
        (404, "BlobNotFound", "ClientOtherError"),
        (403, "AuthenticationFailed", "AuthorizationError"),
        (401, "NoAuthenticationInformation", "AuthorizationError"),
        (499, "", "NetworkError"),
        (500, "InternalError", "ServerOtherError"),
        (500, "OperationTimedOut", "ServerTimeoutError"),
        (501, "NotImplemented", "ClientOtherError"),
        (503, "ServerBusy", "ServerBusyError"),
        (503, "InsufficientStorage", "ServerOtherError"),
    ],
)
def test_response_types(status: int, code: str, kind: str) -> None:
    assert response_type(status, code) == kind


def test_every_error_has_a_kind_and_none_is_a_success() -> None:
    kinds = {response_type(error.status, error.code) for error in ErrorCode}
    assert kinds < set(RESPONSE_TYPES)
    assert "Success" not in kinds


def test_operations_have_names_of_their_own() -> None:
    names = [api_name(operation.name) for operation in Operation]
    assert len(set(names)) == len(names)
    assert {"GetBlob", "PutBlockList", "ListBlobs", "BlobPreflightRequest"} <= set(names)


def find_promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    return found


def run_promtool(*arguments: str) -> None:
    done = subprocess.run([find_promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alert_rules_are_valid_and_pass_their_tests() -> None:
    run_promtool("check", "rules", str(ALERTS))
    run_promtool("test", "rules", str(ALERTS.with_name("alerts_test.yml")))


# Ten minutes of one sample a minute. In a second: 9 successes of 0.4 s, of which 0.1 s is waiting for the client,
# 1 server fault, 5 refused for being busy.
_SERIES = {
    'blobedge_requests_total{operation="GetBlob",auth="SAS",response_type="Success"}': 9,
    'blobedge_requests_total{operation="GetBlob",auth="SAS",response_type="ServerOtherError"}': 1,
    'blobedge_requests_total{operation="GetBlob",auth="SAS",response_type="ServerBusyError"}': 5,
    'blobedge_request_seconds_total{operation="GetBlob",response_type="Success"}': 3.6,
    'blobedge_request_phase_seconds_total{operation="GetBlob",response_type="Success",phase="send"}': 0.9,
    'blobedge_received_bytes_total{operation="GetBlob",response_type="Success"}': 7,
    'blobedge_sent_bytes_total{operation="GetBlob",response_type="Success"}': 11,
}
_EXPECTED = {
    "Transactions": 300 * 15,
    "Ingress": 300 * 7,
    "Egress": 300 * 11,
    "SuccessE2ELatency": 400,
    "SuccessServerLatency": 300,
    "Availability": 90,
}


def test_the_promql_gives_azures_figures(tmp_path: Path) -> None:
    checks = [
        {
            "expr": f"round(sum({each.promql}), 0.001)",
            "eval_time": "10m",
            "exp_samples": [{"labels": "{}", "value": _EXPECTED[each.name]}],
        }
        for each in DERIVED
    ]
    series = [{"series": name, "values": f"0+{rate * 60:g}x20"} for name, rate in _SERIES.items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": checks}
    path = tmp_path / "derived.yml"
    path.write_text(json.dumps({"rule_files": [], "tests": [test]}))  # JSON is YAML
    run_promtool("test", "rules", str(path))


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def dashboard_expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def test_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    expressions = [each.replace("$__rate_interval", "5m") for each in dashboard_expressions()]
    rules = [{"record": f"dashboard:query:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_promtool("check", "rules", str(path))


def test_dashboard_and_alerts_use_only_metrics_that_exist() -> None:
    text = "\n".join([*dashboard_expressions(), ALERTS.read_text()])
    used = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bblobedge_\w+", text)}
    assert used <= set(FAMILIES)
    assert len(used) > 20


def test_the_dashboards_panels_have_places_and_descriptions_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        taken |= cells
        assert panel["type"] == "row" or panel["description"]
