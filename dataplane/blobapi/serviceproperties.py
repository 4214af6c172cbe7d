"""The properties of the Blob service of an account: what Set sends, what Get returns, and how the store keeps them.

Set is partial: a section that the document leaves out stays as it was; one that it holds replaces the old one whole
(REST page "Set Blob Service Properties"; the recordings agree, StaticWebsite included). Order and defaults of the
answer are those of the recordings. Of all this only the CORS rules and the default version change how blobedge
behaves; logging, metrics, retention and website settings are kept and returned, so that tools which set them work.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from dataplane.blobapi import limits, xmlcodec
from dataplane.blobapi.cors import METHODS, CorsRule
from dataplane.blobapi.xmlcodec import Element, boolean, invalid_document, invalid_value, node, parse_boolean

_ROOT: Final = "StorageServiceProperties"
_FORMAT: Final = 1
_VERSION_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_ANALYTICS_VERSIONS: Final = ("1.0", "2.0")
_DELETE_RETENTION_SINCE: Final = "2017-07-29"
_STATIC_WEBSITE_SINCE: Final = "2018-03-28"
#: REST page "Cross-Origin Resource Sharing": literal and prefixed headers of a rule, origins of a rule, chars of one.
_HEADERS_MAX: Final = 64
_PREFIXES_MAX: Final = 2
_ORIGINS_MAX: Final = 64
_CORS_VALUE_CHARS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Retention:
    """RetentionPolicy and DeleteRetentionPolicy; `days` is None unless enabled."""

    enabled: bool = False
    days: int | None = None
    allow_permanent_delete: bool = False


@dataclass(frozen=True, slots=True)
class Logging:
    """Storage Analytics logging."""

    version: str = "1.0"
    read: bool = False
    write: bool = False
    delete: bool = False
    retention: Retention = Retention()


@dataclass(frozen=True, slots=True)
class Metrics:
    """Storage Analytics metrics per hour or minute; `include_apis` is None unless enabled."""

    version: str = "1.0"
    enabled: bool = False
    include_apis: bool | None = None
    retention: Retention = Retention()


@dataclass(frozen=True, slots=True)
class StaticWebsite:
    """Static website; the paths are "" when they are not set."""

    enabled: bool = False
    index_document: str = ""
    error_document: str = ""
    default_index_document_path: str = ""


@dataclass(frozen=True, slots=True)
class ServiceProperties:
    """All of them. The defaults are those of a new account. `default_service_version` "" is not set."""

    logging: Logging = Logging()
    hour_metrics: Metrics = Metrics()
    minute_metrics: Metrics = Metrics()
    cors: tuple[CorsRule, ...] = ()
    delete_retention: Retention = Retention()
    static_website: StaticWebsite = StaticWebsite()
    default_service_version: str = ""


def update(current: ServiceProperties, body: bytes) -> ServiceProperties:
    """The properties after a Set Blob Service Properties with this body.

    Raises BlobError InvalidXmlDocument, InvalidXmlNodeValue.
    """
    root = xmlcodec.parse(body, _ROOT, limits.service_properties_bytes_max)
    root.only(tuple(_SECTIONS))
    changes: dict[str, Any] = {}
    for tag, (attribute, reader) in _SECTIONS.items():
        element = root.child(tag)
        if element is not None:
            changes[attribute] = reader(element)
    return replace(current, **changes)


def _logging(element: Element) -> Logging:
    element.only(("Version", "Read", "Write", "Delete", "RetentionPolicy"))
    return Logging(
        _analytics_version(element),
        parse_boolean(element.required("Read")),
        parse_boolean(element.required("Write")),
        parse_boolean(element.required("Delete")),
        _retention(element.required("RetentionPolicy")),
    )


def _metrics(element: Element) -> Metrics:
    element.only(("Version", "Enabled", "IncludeAPIs", "RetentionPolicy"))
    enabled = parse_boolean(element.required("Enabled"))
    include_apis = element.child("IncludeAPIs")
    retention = element.child("RetentionPolicy")
    return Metrics(
        _analytics_version(element),
        enabled,
        parse_boolean(include_apis) if enabled and include_apis is not None else None,
        _retention(retention) if retention is not None else Retention(),
    )


def _retention(element: Element) -> Retention:
    element.only(("Enabled", "Days", "AllowPermanentDelete"))
    enabled = parse_boolean(element.required("Enabled"))
    permanent = element.child("AllowPermanentDelete")
    allow = parse_boolean(permanent) if permanent is not None else False
    if not enabled:
        return Retention(allow_permanent_delete=allow)
    days = element.required("Days")
    if not 0 < _number(days) <= limits.retention_days_max:
        raise invalid_document("Retention days must be greater than 0 and less than or equal to 365 days.", days)
    return Retention(True, _number(days), allow)


def _static_website(element: Element) -> StaticWebsite:
    tags = ("IndexDocument", "ErrorDocument404Path", "DefaultIndexDocumentPath")
    element.only(("Enabled", *tags))
    if not parse_boolean(element.required("Enabled")):
        return StaticWebsite()
    return StaticWebsite(True, *(child.leaf() if (child := element.child(tag)) is not None else "" for tag in tags))


def _default_version(element: Element) -> str:
    text = element.leaf()
    if text and _VERSION_DATE.match(text) is None:
        raise invalid_value(element)
    return text


def _cors(element: Element) -> tuple[CorsRule, ...]:
    element.only(("CorsRule",))
    if len(element.children) > limits.cors_rules_max:
        raise invalid_document(f"There may be at most {limits.cors_rules_max} CORS rules.", element.children[-1])
    rules = tuple(_cors_rule(child) for child in element.children)
    size = sum(len(part.text) for child in element.children for part in child.children)
    if size > limits.cors_rule_bytes_max:
        raise invalid_document(f"CORS rules may have at most {limits.cors_rule_bytes_max} bytes.", element)
    return rules


def _cors_rule(element: Element) -> CorsRule:
    element.only(("AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposedHeaders", "MaxAgeInSeconds"))
    origins = element.required("AllowedOrigins")
    methods = element.required("AllowedMethods")
    age = element.required("MaxAgeInSeconds")
    rule = CorsRule(
        _values(origins),
        tuple(method.upper() for method in _values(methods)),
        _header_names(element.child("AllowedHeaders")),
        _header_names(element.child("ExposedHeaders")),
        _number(age),
    )
    if not rule.origins or len(rule.origins) > _ORIGINS_MAX:
        raise invalid_value(origins)
    if not rule.methods or not set(rule.methods) <= set(METHODS):
        raise invalid_value(methods)
    if rule.max_age_seconds < 0:
        raise invalid_value(age)
    return rule


def _header_names(element: Element | None) -> tuple[str, ...]:
    if element is None:
        return ()
    names = _values(element)
    prefixes = sum(name.endswith("*") and name != "*" for name in names)
    if prefixes > _PREFIXES_MAX or len(names) - prefixes > _HEADERS_MAX:
        raise invalid_value(element)
    return names


def _values(element: Element) -> tuple[str, ...]:
    values = tuple(part.strip() for part in element.leaf().split(",") if part.strip())
    if any(len(value) > _CORS_VALUE_CHARS_MAX or not (value.isascii() and value.isprintable()) for value in values):
        raise invalid_value(element)
    return values


def _analytics_version(element: Element) -> str:
    version = element.required("Version")
    if version.leaf() not in _ANALYTICS_VERSIONS:
        raise invalid_value(version)
    return version.leaf()


def _number(element: Element) -> int:
    text = element.leaf()
    if re.match(r"-?\d{1,10}\Z", text, re.ASCII) is None:
        raise invalid_document(f"The element {element.tag} must be a number.", element)
    return int(text)


#: Element of the document -> attribute of ServiceProperties and its reader.
_SECTIONS: Final[dict[str, tuple[str, Callable[[Element], object]]]] = {
    "Logging": ("logging", _logging),
    "HourMetrics": ("hour_metrics", _metrics),
    "MinuteMetrics": ("minute_metrics", _metrics),
    "Cors": ("cors", _cors),
    "DeleteRetentionPolicy": ("delete_retention", _retention),
    "StaticWebsite": ("static_website", _static_website),
    "DefaultServiceVersion": ("default_service_version", _default_version),
}


def render(properties: ServiceProperties, version: str) -> bytes:
    """The body of Get Blob Service Properties, with the sections that exist at that x-ms-version."""
    log = properties.logging
    pieces = [
        f"<{_ROOT}><Logging>{node('Version', log.version)}{node('Read', boolean(log.read))}"
        f"{node('Write', boolean(log.write))}{node('Delete', boolean(log.delete))}"
        f"{_render_retention('RetentionPolicy', log.retention)}</Logging>",
        _render_metrics("HourMetrics", properties.hour_metrics),
        _render_metrics("MinuteMetrics", properties.minute_metrics),
        "<Cors>" + "".join(map(_render_rule, properties.cors)) + "</Cors>" if properties.cors else "<Cors />",
    ]
    if version >= _DELETE_RETENTION_SINCE:
        pieces.append(_render_retention("DeleteRetentionPolicy", properties.delete_retention))
    if version >= _STATIC_WEBSITE_SINCE:
        pieces.append(_render_website(properties.static_website))
    if properties.default_service_version:
        pieces.append(node("DefaultServiceVersion", properties.default_service_version))
    pieces.append(f"</{_ROOT}>")
    return xmlcodec.document(pieces)


def _render_retention(tag: str, retention: Retention) -> str:
    days = "" if retention.days is None else node("Days", str(retention.days))
    permanent = node("AllowPermanentDelete", "true") if retention.allow_permanent_delete else ""
    return f"<{tag}>{node('Enabled', boolean(retention.enabled))}{days}{permanent}</{tag}>"


def _render_metrics(tag: str, metrics: Metrics) -> str:
    apis = "" if metrics.include_apis is None else node("IncludeAPIs", boolean(metrics.include_apis))
    return (
        f"<{tag}>{node('Version', metrics.version)}{node('Enabled', boolean(metrics.enabled))}{apis}"
        f"{_render_retention('RetentionPolicy', metrics.retention)}</{tag}>"
    )


def _render_rule(rule: CorsRule) -> str:
    return (
        f"<CorsRule>{node('AllowedMethods', ','.join(rule.methods))}{node('AllowedOrigins', ','.join(rule.origins))}"
        f"{node('AllowedHeaders', ','.join(rule.allowed_headers))}"
        f"{node('ExposedHeaders', ','.join(rule.exposed_headers))}"
        f"{node('MaxAgeInSeconds', str(rule.max_age_seconds))}</CorsRule>"
    )


def _render_website(website: StaticWebsite) -> str:
    paths = (
        ("IndexDocument", website.index_document),
        ("ErrorDocument404Path", website.error_document),
        ("DefaultIndexDocumentPath", website.default_index_document_path),
    )
    inner = "".join(node(tag, text) for tag, text in paths if text)
    return f"<StaticWebsite>{node('Enabled', boolean(website.enabled))}{inner}</StaticWebsite>"


def dump(properties: ServiceProperties) -> bytes:
    """The document that the store keeps: JSON with a format number."""
    return json.dumps({"format": _FORMAT, **asdict(properties)}, separators=(",", ":")).encode("ascii")


def load(data: bytes | None) -> ServiceProperties:
    """The properties from the store's document; None is a new account. Raises ValueError when it is not one of ours."""
    if data is None:
        return ServiceProperties()
    try:
        found = json.loads(data)
        if found.pop("format") != _FORMAT:
            raise ValueError("unknown format number")
        return ServiceProperties(
            Logging(**{**found["logging"], "retention": Retention(**found["logging"]["retention"])}),
            _load_metrics(found["hour_metrics"]),
            _load_metrics(found["minute_metrics"]),
            tuple(_load_rule(rule) for rule in found["cors"]),
            Retention(**found["delete_retention"]),
            StaticWebsite(**found["static_website"]),
            found["default_service_version"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a service properties document: {error}") from error


def _load_metrics(found: dict[str, Any]) -> Metrics:
    return Metrics(**{**found, "retention": Retention(**found["retention"])})


def _load_rule(found: dict[str, Any]) -> CorsRule:
    lists = {name: tuple(found[name]) for name in ("origins", "methods", "allowed_headers", "exposed_headers")}
    return CorsRule(**lists, max_age_seconds=found["max_age_seconds"])
