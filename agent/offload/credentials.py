"""What signs requests to the cloud, made of what the configuration names and read again when its file changes.

    sas_file                 a SAS, with or without `?`, one line
    connection_string_file   with AccountKey= or SharedAccessSignature=, one line
    key_file                 an account key in base64, one line
    managed_identity, workload_identity, client_secret    azure-identity; the last one reads its secret from a file

A file is looked at before each piece of work (one stat) and read again when it was replaced or changed, so a rotated
SAS or key counts from the next request on, without a restart. No text here repeats what is in a file. azure-identity is
imported only for its own kinds.
Rejected: credentials in the configuration or the environment, which end up in a process list or a bug report.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from agent.problems import OperatorError

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CredentialKind = Literal[
    "sas_file", "connection_string_file", "key_file", "managed_identity", "workload_identity", "client_secret"
]
_IDENTITIES: Final = frozenset({"managed_identity", "workload_identity", "client_secret"})
FILE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """Where the cloud is and what opens it. `account` is read out of the endpoint when it is empty."""

    endpoint: str  # https://ACCOUNT.blob.core.windows.net, or path style http://127.0.0.1:10000/ACCOUNT
    kind: CredentialKind
    file: Path | None = None  # of the three files, and of a client's secret
    account: str = ""
    client_id: str = ""
    tenant_id: str = ""
    ca_file: Path | None = None

    def account_name(self) -> str:
        """The account: as given, or as the endpoint says it, host style or path style."""
        parts = urlsplit(self.endpoint)
        return self.account or parts.path.strip("/") or (parts.hostname or "").partition(".")[0]


@dataclass(frozen=True, slots=True)
class Credential:
    """What is in use now. `serial` is another one after each change of the file."""

    signer: "AzureSasCredential | AzureNamedKeyCredential | TokenCredential"
    serial: int
    sas: str = ""  # for the source of a copy; a secret
    expires: datetime | None = None  # of a SAS

    @property
    def is_plain(self) -> bool:
        """Whether a request can be signed with nothing but what is here: a SAS or a key, no token."""
        return bool(self.sas) or isinstance(self.signer, AzureNamedKeyCredential)

    def expired(self, now: datetime) -> bool:
        """Whether a SAS has run out by our clock."""
        return self.expires is not None and self.expires <= now


class Credentials:
    """Keeps the credential up to date. Safe for threads."""

    def __init__(self, settings: CloudSettings) -> None:
        """Raises OperatorError when there is nothing to sign with."""
        self._settings: Final = settings
        self._lock: Final = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        if settings.kind in _IDENTITIES:
            _check_https(settings)
        elif settings.file is None:
            raise OperatorError(f"[cloud] {settings.kind}: names no file")
        self._credential = self._read(0)

    def current(self) -> Credential:
        """The credential, read again if its file has changed. Raises OperatorError when it does not read."""
        with self._lock:
            if self._settings.kind not in _IDENTITIES and self._identity() != self._seen:
                self._credential = self._read(self._credential.serial + 1)
            return self._credential

    def _identity(self) -> tuple[int, int, int] | None:
        """What changes when the file is replaced or written."""
        assert self._settings.file is not None
        try:
            status = self._settings.file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self, serial: int) -> Credential:
        settings = self._settings
        if settings.kind in _IDENTITIES:
            return Credential(_identity_signer(settings), serial)
        seen = self._identity()  # before reading: a change in between is seen next time
        text = _one_line(settings)
        made = _READERS[settings.kind](settings, text, serial)
        self._seen = seen
        return made


def _one_line(settings: CloudSettings) -> str:
    assert settings.file is not None
    try:
        with settings.file.open(encoding="ascii") as file:
            text = file.read(FILE_BYTES_MAX).strip()
    except OSError as error:
        raise OperatorError(f"[cloud] {settings.kind}: {settings.file} does not read: {error.strerror}") from None
    except ValueError:
        text = ""
    if not text or "\n" in text:
        raise OperatorError(f"[cloud] {settings.kind}: {settings.file} has to hold one line of ASCII")
    return text


def _of_sas(settings: CloudSettings, text: str, serial: int) -> Credential:
    sas = text.lstrip("?")
    fields = parse_qs(sas)
    if "sig" not in fields:
        raise OperatorError(f"[cloud] {settings.kind}: {settings.file} holds no SAS: it has no sig=")
    return Credential(AzureSasCredential(sas), serial, sas, _instant(fields.get("se", [""])[0]))


def _of_key(settings: CloudSettings, text: str, serial: int) -> Credential:
    return Credential(AzureNamedKeyCredential(settings.account_name(), text), serial)


def _of_connection_string(settings: CloudSettings, text: str, serial: int) -> Credential:
    """Only what signs is taken; where the cloud is, the configuration says."""
    fields = {name.strip().lower(): value for name, _, value in (part.partition("=") for part in text.split(";"))}
    if sas := fields.get("sharedaccesssignature"):
        return _of_sas(settings, sas, serial)
    if key := fields.get("accountkey"):
        name = fields.get("accountname") or settings.account_name()
        return Credential(AzureNamedKeyCredential(name, key), serial)
    raise OperatorError(f"[cloud] {settings.kind}: {settings.file} has neither AccountKey= nor SharedAccessSignature=")


_READERS: Final[dict[str, Callable[[CloudSettings, str, int], Credential]]] = {
    "sas_file": _of_sas,
    "key_file": _of_key,
    "connection_string_file": _of_connection_string,
}


def _identity_signer(settings: CloudSettings) -> "TokenCredential":
    """azure-identity's credential. It asks for no token before the first request."""
    from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential

    options: dict[str, Any] = {"client_id": settings.client_id} if settings.client_id else {}
    try:
        if settings.kind == "managed_identity":
            return ManagedIdentityCredential(**options)
        if settings.kind == "workload_identity":
            tenant = {"tenant_id": settings.tenant_id} if settings.tenant_id else {}
            return WorkloadIdentityCredential(**options, **tenant)
        return ClientSecretCredential(settings.tenant_id, settings.client_id, _one_line(settings))
    except ValueError:
        raise OperatorError(
            f"[cloud] {settings.kind}: needs tenant_id and client_id (a workload identity gets them, and its "
            "token's file, from the environment of its pod)"
        ) from None


def _check_https(settings: CloudSettings) -> None:
    if urlsplit(settings.endpoint).scheme != "https":
        raise OperatorError(f"[cloud] {settings.kind}: an identity's token is sent over https only: mend the endpoint")
    if settings.kind == "client_secret" and settings.file is None:
        raise OperatorError("[cloud] client_secret: names no file with the secret")


def _instant(text: str) -> datetime | None:
    """The time of a SAS's `se`: ISO 8601, with or without seconds; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
