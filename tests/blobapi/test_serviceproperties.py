"""Service properties: recorded documents, partial updates, refusals, and the stored form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.blobapi import serviceproperties
from dataplane.blobapi.cors import CorsRule
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.serviceproperties import (
    Logging,
    Metrics,
    Retention,
    ServiceProperties,
    StaticWebsite,
    dump,
    load,
    render,
    update,
)

NEW = ServiceProperties()
RETENTIONS = st.builds(Retention, st.just(False)) | st.builds(Retention, st.just(True), st.integers(1, 365))
METRICS = st.builds(Metrics, enabled=st.just(False), retention=RETENTIONS) | st.builds(
    Metrics, enabled=st.just(True), include_apis=st.booleans(), retention=RETENTIONS
)
NAMES = st.lists(st.sampled_from(["x-ms-meta-abc", "x-ms-meta-data*", "*", "date"]), max_size=3, unique=True).map(tuple)
RULES = st.builds(
    CorsRule,
    st.just(("https://a.example", "*")),
    st.lists(st.sampled_from(["GET", "PUT"]), min_size=1, max_size=2, unique=True).map(tuple),
    NAMES,
    NAMES,
    st.integers(0, 10**9),
)
PROPERTIES = st.builds(
    ServiceProperties,
    st.builds(Logging, st.just("1.0"), st.booleans(), st.booleans(), st.booleans(), RETENTIONS),
    METRICS,
    METRICS,
    st.lists(RULES, max_size=5).map(tuple),
    RETENTIONS,
    st.just(StaticWebsite())
    | st.builds(StaticWebsite, st.just(True), st.sampled_from(["", "index.html"]), st.just("404.html")),
    st.sampled_from(["", "2014-02-14"]),
)


@given(PROPERTIES)
def test_what_get_returns_can_be_set(properties: ServiceProperties) -> None:
    assert update(NEW, render(properties, "2020-10-02")) == properties


@given(PROPERTIES)
def test_stored_form_round_trip(properties: ServiceProperties) -> None:
    assert load(dump(properties)) == properties


def test_the_recorded_defaults() -> None:
    off = "<RetentionPolicy><Enabled>false</Enabled></RetentionPolicy>"
    assert render(ServiceProperties(default_service_version="2014-02-14"), "2018-11-09").decode("utf-8-sig") == (
        '<?xml version="1.0" encoding="utf-8"?><StorageServiceProperties><Logging><Version>1.0</Version>'
        f"<Read>false</Read><Write>false</Write><Delete>false</Delete>{off}</Logging>"
        f"<HourMetrics><Version>1.0</Version><Enabled>false</Enabled>{off}</HourMetrics>"
        f"<MinuteMetrics><Version>1.0</Version><Enabled>false</Enabled>{off}</MinuteMetrics><Cors />"
        "<DeleteRetentionPolicy><Enabled>false</Enabled></DeleteRetentionPolicy>"
        "<StaticWebsite><Enabled>false</Enabled></StaticWebsite>"
        "<DefaultServiceVersion>2014-02-14</DefaultServiceVersion></StorageServiceProperties>"
    )


def test_older_versions_lack_the_newer_sections() -> None:
    assert b"StaticWebsite" not in render(NEW, "2017-11-09")
    assert b"DeleteRetentionPolicy" in render(NEW, "2017-11-09")
    assert b"DeleteRetentionPolicy" not in render(NEW, "2014-02-14")


def _set(inner: str, current: ServiceProperties = NEW) -> ServiceProperties:
    body = f"<?xml version='1.0' encoding='utf-8'?>\n<StorageServiceProperties>{inner}</StorageServiceProperties>"
    return update(current, body.encode())


def test_recorded_partial_updates() -> None:
    metrics = (
        "<HourMetrics><Version>1.0</Version><Enabled>True</Enabled><IncludeAPIs>True</IncludeAPIs>"
        "<RetentionPolicy><Enabled>True</Enabled><Days>5</Days></RetentionPolicy></HourMetrics>"
    )
    website = "<StaticWebsite><Enabled>True</Enabled><IndexDocument>index.html</IndexDocument></StaticWebsite>"
    first = _set(metrics)
    second = _set(website, first)
    assert second.hour_metrics == first.hour_metrics == Metrics("1.0", True, True, Retention(True, 5))
    assert second.static_website == StaticWebsite(True, "index.html")
    third = _set("<StaticWebsite><Enabled>True</Enabled></StaticWebsite>", second)
    assert third.static_website == StaticWebsite(True)
    assert _set("<Cors/>", third).hour_metrics == first.hour_metrics


@pytest.mark.parametrize(
    ("inner", "position"),
    [
        (
            "<MinuteMetrics><Version>1.0</Version><Enabled>True</Enabled><IncludeAPIs>True</IncludeAPIs>"
            "<RetentionPolicy><Enabled>True</Enabled><Days>366</Days></RetentionPolicy></MinuteMetrics>",
            "176",
        ),
        ("<DeleteRetentionPolicy><Enabled>True</Enabled><Days>0</Days></DeleteRetentionPolicy>", "89"),
    ],
)
def test_the_recorded_refusal_of_a_retention(inner: str, position: str) -> None:
    with pytest.raises(BlobError) as caught:
        _set(inner)
    assert caught.value.code is ErrorCode.INVALID_XML_DOCUMENT
    assert caught.value.detail == (
        ("LineNumber", "2"),
        ("LinePosition", position),
        ("Reason", "Retention days must be greater than 0 and less than or equal to 365 days."),
    )


def _rule(origins: str = "*", methods: str = "GET", headers: str = "", age: str = "5") -> str:
    return (
        f"<CorsRule><AllowedOrigins>{origins}</AllowedOrigins><AllowedMethods>{methods}</AllowedMethods>"
        f"<AllowedHeaders>{headers}</AllowedHeaders><ExposedHeaders/><MaxAgeInSeconds>{age}</MaxAgeInSeconds></CorsRule>"
    )


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        (f"<Cors>{_rule() * 6}</Cors>", ErrorCode.INVALID_XML_DOCUMENT),
        (f"<Cors>{_rule(origins='h' * 250 + ',' + 'i' * 250) * 5}</Cors>", ErrorCode.INVALID_XML_DOCUMENT),
        (f"<Cors>{_rule(origins='')}</Cors>", ErrorCode.INVALID_XML_NODE_VALUE),
        (f"<Cors>{_rule(origins='h' * 257)}</Cors>", ErrorCode.INVALID_XML_NODE_VALUE),
        (f"<Cors>{_rule(methods='FETCH')}</Cors>", ErrorCode.INVALID_XML_NODE_VALUE),
        (f"<Cors>{_rule(headers='a*,b*,c*')}</Cors>", ErrorCode.INVALID_XML_NODE_VALUE),
        (f"<Cors>{_rule(age='-1')}</Cors>", ErrorCode.INVALID_XML_NODE_VALUE),
        (f"<Cors>{_rule(age='1e3')}</Cors>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Cors><CorsRule/></Cors>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Logging/>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<HourMetrics><Version>3.0</Version><Enabled>true</Enabled></HourMetrics>", ErrorCode.INVALID_XML_NODE_VALUE),
        ("<DeleteRetentionPolicy><Enabled>true</Enabled></DeleteRetentionPolicy>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<DefaultServiceVersion>new</DefaultServiceVersion>", ErrorCode.INVALID_XML_NODE_VALUE),
        ("<Unknown/>", ErrorCode.INVALID_XML_DOCUMENT),
        ("<Cors/><Cors/>", ErrorCode.INVALID_XML_DOCUMENT),
    ],
)
def test_refusals(inner: str, code: ErrorCode) -> None:
    with pytest.raises(BlobError) as caught:
        _set(inner)
    assert caught.value.code is code


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1}', b"\xff"])
def test_other_stored_documents_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a service properties document"):
        load(data)


def test_a_new_account_has_the_defaults() -> None:
    assert serviceproperties.load(None) == NEW
