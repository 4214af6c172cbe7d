"""The settings document: both ends agree, another version is refused, keys stay out of a repr."""

import json

import pytest

from dataplane.ipc.settings import (
    AccountSettings,
    CopySource,
    LimitSettings,
    ListenerSettings,
    MappedContainer,
    Settings,
    SettingsError,
    from_json,
    to_json,
)

SETTINGS = Settings(
    worker=1,
    workers=2,
    slot_fd=9,
    listeners=(
        ListenerSettings(7, "http", "127.0.0.1", 10000),
        ListenerSettings(8, "https", "::1", 443, "/etc/cert.pem", "/etc/key.pem"),
    ),
    accounts=(
        AccountSettings("one", "/data/one", ("c2VjcmV0",), containers=(MappedContainer("logs", "/var/log", True),)),
        AccountSettings(
            "two", "/data/two", ("a2V5MQ==", "a2V5Mg=="), "relaxed", "sidecar", host_names=("blobs.example",)
        ),
    ),
    copy_sources=(CopySource("*.blob.core.windows.net"), CopySource("10.0.0.1", 8443, private=True)),
    limits=LimitSettings(connections_count_max=10),
)


def test_the_worker_reads_what_the_supervisor_wrote() -> None:
    assert from_json(json.loads(json.dumps(to_json(SETTINGS)))) == SETTINGS


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": None}, {"accounts": None}, {"surprise": 1}, {"limits": {"x": 1}}]
)
def test_another_document_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        from_json({**to_json(SETTINGS), **change})


def test_a_missing_part_is_refused() -> None:
    document = to_json(SETTINGS)
    del document["worker"]
    with pytest.raises(SettingsError):
        from_json(document)


def test_keys_do_not_show_in_a_repr() -> None:
    assert "c2VjcmV0" not in repr(SETTINGS)
