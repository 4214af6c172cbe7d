"""What a failure of the cloud means: one table from what was observed to what happens next, pure.

Every request of the offload that fails becomes an Observation, and every Observation has a Fault: nobody else decides
what is tried again. Classes:

    NOW       damaged on the way, or a check afterwards found it wrong: again at once, a few times; then as LATER
    LATER     the service, or a file here, cannot just now: again after a pause that grows
    LINK      there is no way to the service: again when link.py says that there is one
    OPERATOR  a person has to mend something; the text says what: which permission, which container, which file
    POISON    this blob will never go as it is; the others go on
    CONFLICT  somebody else changed the blob in the cloud

Codes are those of the REST pages "Common REST API error codes" and "Blob service error codes". A code that is not in
the table is judged by its status, a status that is not by its hundred. Texts are made of names that we know ourselves
and of the error's code, never of what a server wrote: it may quote a request, and a request may hold a secret.
Rejected: the SDK's own retries. They know neither the link nor the budget, and hide what they sent again.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What happens after a failure."""

    NOW = "now"
    LATER = "later"
    LINK = "link"
    OPERATOR = "operator"
    POISON = "poison"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of the cloud: for the texts, and to say which permission it needs."""

    action: str  # the REST page's name, "Put Blob"
    permission: str  # letters of a SAS that allow it, each needed: "w"; "rt"
    account: str = ""
    container: str = ""
    name: str = ""
    expires: str = ""  # when the SAS in use expires, as it says itself; "" without one or without a date
    expired: bool = False  # by our clock
    keyed: bool = False  # signed with an account key


@dataclass(frozen=True, slots=True)
class Observation:
    """What came back: a status and Azure's code, or else the name of the exception's class."""

    status: int = 0  # 0: no answer
    code: str = ""  # x-ms-error-code
    exception: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What a failure means. `wait_seconds_min`: the service asked not to be asked again before that. `gist`: the text
    without the blob's name, for what counts many blobs by their reasons."""

    kind: Kind
    text: str  # for the operator, without secrets
    code: str = ""  # Azure's code or the exception's class, for counting
    wait_seconds_min: float = 0.0
    gist: str = ""


class CloudFailed(Exception):
    """Work that did not succeed, with its Fault. `maybe_done`: the service may have done it all the same."""

    def __init__(self, fault: Fault, *, maybe_done: bool = False) -> None:
        super().__init__(fault.text)
        self.fault = fault
        self.maybe_done = maybe_done


PERMISSIONS: Final = {
    "r": "read", "a": "add", "c": "create", "w": "write", "d": "delete", "t": "tags", "l": "list",
}  # fmt: skip

_NOT_ALLOWED: Final = (
    "{account}: {action} on {blob} is not permitted: the SAS lacks {permission}, or the identity a role"
)
_REFUSED: Final = "{account}: the credential is refused ({code}): a key that was changed, or a clock that is wrong"
_EXPIRED: Final = "{account}: the SAS expired at {expires}: put a new one into its file"
_NETWORK: Final = "{account}: {action} is refused from this network ({code}): see the account's firewall and the SAS"
_KEY: Final = (
    "{account}: {action} is refused ({code}): the account key in [cloud] is not this account's, or not any more; or "
    "the account's firewall refuses this network"
)
_SCOPE: Final = "{account}: {action} is outside of what the SAS is for ({code}): it needs service b, types c and o"
_NO_CONTAINER: Final = "{account}: there is no container {container}: create it, or give the rule another target"
_NO_ACCOUNT: Final = "{account}: there is no such account, or it is disabled ({code})"
_OFF: Final = "{account}: the account does not take {action} as asked ({code})"
_SAYS: Final = "{account}: {action} on {blob} was answered {answer}"
_NEVER: Final = "{account}: the service will not take {blob} ({answer})"
_CHANGED: Final = "{blob} was changed in {account} by somebody else ({code})"
_LEASED: Final = "{account}: somebody holds a lease on {blob} ({code})"
_NO_LINK: Final = "{account}: no way to the service ({code})"
_UNREADABLE: Final = "{account}: an answer to {action} does not read: is this a Blob service?"

#: By Azure's code, whatever the status.
CODES: Final[dict[str, tuple[Kind, str]]] = {
    # What a credential may do.
    "AuthorizationPermissionMismatch": (Kind.OPERATOR, _NOT_ALLOWED),
    "InsufficientAccountPermissions": (Kind.OPERATOR, _NOT_ALLOWED),
    "UnauthorizedBlobOverwrite": (
        Kind.OPERATOR,
        "{account}: {blob} may not be overwritten: the SAS lacks w (write); c (create) alone writes a blob once only",
    ),
    "AuthorizationFailure": (Kind.OPERATOR, _NETWORK),
    "AuthorizationSourceIPMismatch": (Kind.OPERATOR, _NETWORK),
    "AuthorizationProtocolMismatch": (Kind.OPERATOR, "{account}: the SAS allows https only: use an https endpoint"),
    "AuthorizationResourceTypeMismatch": (Kind.OPERATOR, _SCOPE),
    "AuthorizationServiceMismatch": (Kind.OPERATOR, _SCOPE),
    "AuthenticationFailed": (Kind.OPERATOR, _REFUSED),
    "InvalidAuthenticationInfo": (Kind.OPERATOR, _REFUSED),
    "NoAuthenticationInformation": (Kind.OPERATOR, _REFUSED),
    "KeyBasedAuthenticationNotPermitted": (
        Kind.OPERATOR,
        "{account}: the account takes no keys and no SAS made of them ({code}): use an identity",
    ),
    # What is not there.
    "ContainerNotFound": (Kind.OPERATOR, _NO_CONTAINER),
    "ContainerDisabled": (Kind.OPERATOR, "{account}: the container {container} is disabled"),
    "ContainerBeingDeleted": (Kind.LATER, "{account}: the container {container} is being deleted"),
    "AccountIsDisabled": (Kind.OPERATOR, _NO_ACCOUNT),
    "ResourceNotFound": (Kind.OPERATOR, _NO_ACCOUNT),
    "AccountBeingCreated": (Kind.LATER, _SAYS),
    "BlobNotFound": (Kind.NOW, "{account}: {blob} is not there"),
    # What somebody else did to the blob.
    "ConditionNotMet": (Kind.CONFLICT, _CHANGED),
    "TargetConditionNotMet": (Kind.CONFLICT, _CHANGED),
    "SourceConditionNotMet": (Kind.CONFLICT, _CHANGED),
    "BlobAlreadyExists": (Kind.CONFLICT, _CHANGED),
    "BlobOverwritten": (Kind.CONFLICT, _CHANGED),
    "LeaseIdMissing": (Kind.LATER, _LEASED),
    "LeaseIdMismatchWithBlobOperation": (Kind.LATER, _LEASED),
    "PendingCopyOperation": (Kind.LATER, "{account}: {blob} is being copied onto by somebody else"),
    "InvalidBlobType": (
        Kind.OPERATOR,
        "{account}: {blob} is an append or page blob there: delete it, or give the rule another target",
    ),
    "BlobArchived": (Kind.OPERATOR, "{account}: {blob} is archived there: rehydrate it first"),
    "BlobBeingRehydrated": (Kind.LATER, "{account}: {blob} is being rehydrated"),
    "SnapshotsPresent": (
        Kind.OPERATOR,
        "{account}: {blob} has snapshots there, which are never deleted with it: delete them, or drop the row",
    ),
    "BlobImmutableDueToPolicy": (
        Kind.OPERATOR,
        "{account}: a retention policy or legal hold keeps {blob} as it is: it cannot be replaced or deleted yet",
    ),
    # Bytes.
    "Md5Mismatch": (Kind.NOW, "{account}: bytes of {blob} arrived damaged"),
    "InvalidOperation": (Kind.NOW, _SAYS),  # what Azurite calls Md5Mismatch
    "InvalidBlockList": (Kind.NOW, "{account}: blocks of {blob} have gone: they are sent again"),
    "IncompleteBody": (Kind.NOW, _SAYS),
    "InvalidBlobOrBlock": (Kind.OPERATOR, "{account}: another program staged blocks of {blob}: a week clears them"),
    "BlockCountExceedsLimit": (Kind.OPERATOR, "{account}: too many blocks are staged to {blob}: a week clears them"),
    # What the account does not have.
    "FeatureNotSupported": (Kind.OPERATOR, _OFF),
    "BlobAccessTierNotSupportedForAccountType": (Kind.OPERATOR, _OFF),
    "InvalidBlobTier": (Kind.OPERATOR, _OFF),
    "CannotVerifyCopySource": (
        Kind.OPERATOR,
        "{account}: {blob} cannot be copied beside itself: the credential lacks r (read) for it",
    ),
    # The service itself.
    "ServerBusy": (Kind.LATER, "{account}: the service is busy"),
    "InternalError": (Kind.LATER, _SAYS),
    "OperationTimedOut": (Kind.LATER, _SAYS),
    # What is found here, before or after a request.
    "ReadFailed": (Kind.LATER, "{blob} cannot be read here: see the mount and its log"),
    "SourceChanged": (Kind.NOW, "{blob} changed while it was read: its new version is sent"),
    "SourceDamaged": (
        Kind.POISON,
        "{blob}: the bytes here do not have the MD5 that was recorded, by us or by a client, and are not sent: look at "
        "the disk; restore the blob, write it again, or mend its Content-MD5",
    ),
    "BytesAway": (Kind.OPERATOR, "{blob} is a stub here: it has no bytes to send"),
    "StubLost": (
        Kind.OPERATOR,
        "{blob}: the stub here has lost what it stands for: `blobedge reconcile --repair` mends it from the cloud",
    ),
    "StubWritten": (
        Kind.OPERATOR,
        "{account}: {blob}: somebody wrote into its stub here, and what was written would replace the only copy: "
        "`truncate -s 0` on the stub makes it one again, `chmod u+w,-t` keeps and sends what was written; then "
        "`blobedge queue retry --hold operator`. Deleting the file may delete the copy",
    ),
    "CopyGone": (
        Kind.OPERATOR,
        "{account}: {blob} is not there with the content that the stub here stands for, and its bytes are nowhere "
        "else: bring them back there (an older version, a soft delete), or write the blob again",
    ),
    "MetadataTooLarge": (Kind.POISON, _NEVER),
    "NotVerified": (Kind.NOW, "{account}: {blob} was taken, but is not there as it was sent"),
    "ChangesAllTheTime": (Kind.LATER, "{blob} is changed in {account} all the time by somebody else"),
    "CopyFailed": (Kind.LATER, "{account}: the version of {blob} there could not be copied beside it"),
    "PaceClosed": (Kind.LATER, "the schedule or the daily budget sends nothing now"),
    "Cancelled": (Kind.LATER, "the upload was stopped"),
    "DeadlinePassed": (Kind.LATER, "the upload took too long"),
    "CredentialChanged": (Kind.NOW, "{account}: the credential was replaced meanwhile"),
    "CredentialUnreadable": (Kind.OPERATOR, "{account}: the credential's file does not read: see [cloud]"),
}  # fmt: skip

#: By status, for codes that are not above.
STATUSES: Final[dict[int, tuple[Kind, str]]] = {
    401: (Kind.OPERATOR, _REFUSED),
    403: (Kind.OPERATOR, _REFUSED),
    404: (Kind.OPERATOR, _SAYS),
    405: (Kind.OPERATOR, _OFF),
    407: (Kind.OPERATOR, "{account}: a proxy wants credentials: the offload uses no proxy"),
    408: (Kind.LATER, _SAYS),
    409: (Kind.LATER, _SAYS),
    412: (Kind.CONFLICT, _CHANGED),
    423: (Kind.LATER, _SAYS),
    425: (Kind.LATER, _SAYS),
    429: (Kind.LATER, "{account}: the service asks for fewer requests"),
}

#: By the exception's class, without an answer. The SDK's (azure.core.exceptions), azure-identity's, and Python's.
EXCEPTIONS: Final[dict[str, tuple[Kind, str]]] = {
    "ServiceRequestError": (Kind.LINK, _NO_LINK),
    "ServiceRequestTimeoutError": (Kind.LINK, _NO_LINK),
    "ServiceResponseError": (Kind.LINK, _NO_LINK),
    "ServiceResponseTimeoutError": (Kind.LINK, _NO_LINK),
    "IncompleteReadError": (Kind.LINK, _NO_LINK),
    "InvalidHeader": (Kind.POISON, _NEVER),
    "UnicodeEncodeError": (Kind.POISON, _NEVER),
    "DecodeError": (Kind.LATER, _UNREADABLE),
    "AttributeError": (Kind.LATER, _UNREADABLE),
    "KeyError": (Kind.LATER, _UNREADABLE),
    "TypeError": (Kind.LATER, _UNREADABLE),
    "SSLCertVerificationError": (
        Kind.OPERATOR,
        "{account}: the certificate is not trusted: see [cloud] ca_file, and whether something on the way opens TLS",
    ),
    "ClientAuthenticationError": (Kind.OPERATOR, "{account}: the identity gets no token: see its settings in [cloud]"),
    "CredentialUnavailableError": (Kind.OPERATOR, "{account}: the identity is not there: see its settings in [cloud]"),
    "AzureSigningError": (Kind.OPERATOR, "{account}: the account key is not base64: see its file"),
}

_HUNDREDS: Final[dict[int, tuple[Kind, str]]] = {3: (Kind.OPERATOR, _SAYS), 4: (Kind.POISON, _NEVER)}
_UNKNOWN: Final = (Kind.LATER, _SAYS)
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}\Z")
RETRY_AFTER_SECONDS_MAX: Final = 3600.0  # who asks for more is asked again all the same


def judge(request: Request, seen: Observation) -> Fault:
    """The Fault of an observation. Never raises, whatever a server said."""
    code = seen.code if _CODE.match(seen.code) else ""
    kind, text = _row(seen.status, code, seen.exception)
    if request.expired and text in (_REFUSED, _NETWORK):  # an expired one is refused in one way or another
        text = _EXPIRED
    elif request.keyed and code == "AuthorizationFailure":  # said of a wrong key too, by some services
        text = _KEY
    name = code or (seen.exception if _CODE.match(seen.exception) else "")
    words = {
        "account": request.account or "the cloud",
        "action": request.action,
        "blob": f"{request.container}/{request.name}",
        "container": request.container,
        "expires": request.expires,
        "permission": _permissions(request.permission),
        "code": name or str(seen.status),
        "answer": " ".join(filter(None, (str(seen.status or ""), name))) or "nothing",
    }
    wait = seen.retry_after_seconds or 0.0
    return Fault(
        kind,
        text.format_map(words),
        name or str(seen.status),
        min(max(wait, 0.0), RETRY_AFTER_SECONDS_MAX),
        text.format_map({**words, "blob": "it"}),
    )


def found(code: str, request: Request | None = None, *, wait_seconds: float | None = None) -> CloudFailed:
    """The failure for something that was found here, by its own code of CODES."""
    seen = Observation(code=code, retry_after_seconds=wait_seconds)
    return CloudFailed(judge(request or Request("the work", ""), seen))


def _row(status: int, code: str, exception: str) -> tuple[Kind, str]:
    """The row of the table: the code says most, then the status, then its hundred."""
    if code in CODES:
        return CODES[code]
    if status:
        return STATUSES.get(status) or _HUNDREDS.get(status // 100) or _UNKNOWN
    return EXCEPTIONS.get(exception, _UNKNOWN)


def _permissions(letters: str) -> str:
    """Each needed letter with its name: `w (write) or t (tags)`, since Azure does not say which of them is missing."""
    return " or ".join(f"{letter} ({PERMISSIONS[letter]})" for letter in letters if letter in PERMISSIONS)


NOW_TRIES_MAX: Final = 3  # what is still wrong after these is not repaired by haste
NOW_SECONDS: Final = 0.2
LATER_SECONDS: Final = 1.0
LATER_SECONDS_MAX: Final = 900.0
_DOUBLINGS_MAX: Final = 16  # LATER_SECONDS_MAX is reached long before; keeps the power small


def pause(fault: Fault, attempts: int, jitter: float) -> float | None:
    """Seconds until the next try; None when it is not time that has to pass (LINK, OPERATOR, POISON).

    `attempts`: how many failed before this one. `jitter`: from [0, 1); half of the pause is left to chance, so that
    what failed together does not come back together.
    """
    if fault.kind is Kind.NOW and attempts < NOW_TRIES_MAX:
        whole = NOW_SECONDS * 2.0**attempts
    elif fault.kind in (Kind.NOW, Kind.LATER, Kind.CONFLICT):
        whole = min(LATER_SECONDS * 2.0 ** min(attempts, _DOUBLINGS_MAX), LATER_SECONDS_MAX)
    else:
        return None
    return max(whole * (0.5 + jitter / 2), fault.wait_seconds_min)
