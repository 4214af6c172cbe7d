"""Access policies of a container: the SignedIdentifiers document and x-ms-blob-public-access.

Rules (REST pages "Set Container ACL", "Get Container ACL", "Define a stored access policy"): at most five identifiers,
each with a unique id of 1 to 64 characters and optionally an access policy, of which every field is optional too. An
identifier with an id alone is stored and comes back the same (recorded). Times come back in UTC with seven decimals.
"""

from collections.abc import Sequence
from typing import Final

from dataplane.blobapi import limits, xmlcodec
from dataplane.blobapi.dates import iso_ticks, parse_iso_ticks
from dataplane.blobapi.errors import BlobError, ErrorCode
from dataplane.blobapi.model import AccessPolicy, PublicAccess

PUBLIC_ACCESS_HEADER: Final = "x-ms-blob-public-access"
#: Letters that a policy on Blob Storage may grant, REST page "Create a service SAS".
_PERMISSIONS: Final = frozenset("racwdxyltmeopifn")


def parse(body: bytes) -> tuple[AccessPolicy, ...]:
    """The policies of a Set Container ACL body; an empty body removes them all.

    Raises BlobError InvalidXmlDocument for whatever is wrong with it, values included (recorded).
    """
    if not body:
        return ()
    root = xmlcodec.parse(body, "SignedIdentifiers", limits.signed_identifiers_bytes_max)
    root.only(("SignedIdentifier",))
    if len(root.children) > limits.stored_access_policies_max:
        raise xmlcodec.invalid_document("There may be at most 5 signed identifiers.", root.children[-1])
    policies: list[AccessPolicy] = []
    for element in root.children:
        policy = _policy(element)
        if any(policy.policy_id == other.policy_id for other in policies):
            raise xmlcodec.invalid_document("Two signed identifiers have the same id.", element)
        policies.append(policy)
    return tuple(policies)


def _policy(element: xmlcodec.Element) -> AccessPolicy:
    element.only(("Id", "AccessPolicy"))
    identifier = element.required("Id")
    policy_id = identifier.leaf()
    if not 0 < len(policy_id) <= limits.policy_id_chars_max:
        raise xmlcodec.invalid_document("An id has 1 to 64 characters.", identifier)
    access = element.child("AccessPolicy")
    if access is None:
        return AccessPolicy(policy_id)
    access.only(("Start", "Expiry", "Permission"))
    return AccessPolicy(policy_id, _time(access, "Start"), _time(access, "Expiry"), _permission(access))


def _time(access: xmlcodec.Element, tag: str) -> str | None:
    element = access.child(tag)
    if element is None or not element.leaf():
        return None
    ticks = parse_iso_ticks(element.leaf())
    if ticks is None:
        raise xmlcodec.invalid_document(f"The element {tag} must be an ISO 8601 time in UTC.", element)
    return iso_ticks(ticks)


def _permission(access: xmlcodec.Element) -> str | None:
    element = access.child("Permission")
    if element is None or not element.leaf():
        return None
    letters = element.leaf()
    if not _PERMISSIONS.issuperset(letters):
        raise xmlcodec.invalid_document("There is no such permission.", element)
    return letters


def render(policies: Sequence[AccessPolicy]) -> bytes:
    """The body of Get Container ACL."""
    if not policies:
        return xmlcodec.document(["<SignedIdentifiers />"])
    items = "".join(_identifier(policy) for policy in policies)
    return xmlcodec.document(["<SignedIdentifiers>", items, "</SignedIdentifiers>"])


def _identifier(policy: AccessPolicy) -> str:
    fields = (("Start", policy.start), ("Expiry", policy.expiry), ("Permission", policy.permissions))
    access = "".join(xmlcodec.node(tag, value) for tag, value in fields if value is not None)
    access = f"<AccessPolicy>{access}</AccessPolicy>" if access else ""
    return f"<SignedIdentifier>{xmlcodec.node('Id', policy.policy_id)}{access}</SignedIdentifier>"


def parse_public_access(value: str | None) -> PublicAccess:
    """x-ms-blob-public-access of Create Container and Set Container ACL. Raises BlobError InvalidHeaderValue."""
    if value is None:
        return PublicAccess.NONE
    try:
        return PublicAccess(value.lower()) if value else PublicAccess.NONE
    except ValueError:
        raise BlobError(ErrorCode.INVALID_HEADER_VALUE, header_name=PUBLIC_ACCESS_HEADER, header_value=value) from None
