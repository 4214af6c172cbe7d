"""The way to the cloud, one step after another, each by itself: DNS, TCP, TLS, HTTP, authorisation, list.

A storage SDK would try again, hide which step failed and fold five causes into one sentence, so this is plain sockets:
the first step that fails is the finding, with its own mend, and the steps before it are known to work. No proxy is
used, as the uploads use none. A SAS goes into the request's target and nowhere else: no reason or finding repeats it.
A key signs the request, as the uploads do it (agent/offload/credentials.py reads both). With a credential of Entra ID
the way ends after HTTP: only the uploads ask for a token.
"""

import binascii
import http.client
import socket
import ssl
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit

from agent.config import Cloud
from agent.doctor import addresses, deadline
from agent.problems import OperatorError
from dataplane.blobapi.sharedkey import sign

Step = Literal["dns", "tcp", "tls", "http", "authorisation", "list"]

STEP_SECONDS_MAX: Final = 5.0
VERSION: Final = "2021-12-02"  # x-ms-version; any that Azure and Azurite have
ERROR_BYTES_MAX: Final = 64 * 1024
_LIST: Final = {"comp": "list", "maxresults": "1"}  # List Containers, the least that needs a credential
#: Error codes of a right signature that may not do this one thing (REST page "Common REST API error codes").
_MAY_NOT_LIST: Final = frozenset(
    {
        "AuthorizationPermissionMismatch",
        "AuthorizationResourceTypeMismatch",
        "AuthorizationServiceMismatch",
        "AuthorizationProtocolMismatch",
    }
)
_DATE_SECONDS: Final = 1.0  # a Date header is cut to seconds: on average half a second old


@dataclass(frozen=True, slots=True)
class Taken:
    """One step: how long it took, and why it failed. `cause` is the word that cloud_advice.py decides by."""

    step: Step
    milliseconds: float
    cause: str = ""  # "" when it worked
    detail: str = ""  # what was found; for a failure the reason in words

    @property
    def failed(self) -> bool:
        return bool(self.cause)


@dataclass(frozen=True, slots=True)
class CloudFacts:
    """What was found on the way, as far as it went."""

    steps: tuple[Taken, ...]
    addresses: tuple[str, ...] = ()
    clock_skew_seconds: float | None = None  # ours less the cloud's, to about half a second
    server: str = ""  # the Server header

    @property
    def failure(self) -> Taken | None:
        return next((each for each in self.steps if each.failed), None)


class _StepFailed(Exception):
    """A step that did not work, with the word and the sentence for it."""

    def __init__(self, cause: str, detail: str) -> None:
        self.cause = cause
        self.detail = detail
        super().__init__(detail)


def observe(cloud: Cloud, *, seconds: float = STEP_SECONDS_MAX, clock: Callable[[], float] = time.time) -> CloudFacts:
    """Walk the way once; stops at the first step that fails. Never raises. `seconds`: deadline of each step."""
    with ExitStack() as stack:
        walk = _Walk(cloud, seconds, clock, stack)
        walk.go()
        return CloudFacts(tuple(walk.steps), tuple(walk.addresses), walk.skew, walk.server)


def report(config_cloud: Cloud | None, *, clock: Callable[[], float] = time.time) -> dict[str, Any]:
    """Return the state of the way for health and status. Never raises; takes up to 6 times STEP_SECONDS_MAX, and
    blocks: call it in a thread. `step` is the one that failed, "" when all worked or nothing is configured."""
    empty = {
        "reachable": False,
        "step": "",
        "reason": "",
        "addresses": [],
        "rtt_milliseconds": None,
        "clock_skew_seconds": None,
    }
    if config_cloud is None:
        return {"configured": False, **empty, "at": clock()}
    facts = observe(config_cloud, clock=clock)
    failure = facts.failure
    rtt = next((each.milliseconds for each in facts.steps if each.step == "tcp" and not each.failed), None)
    return {
        "configured": True,
        "reachable": failure is None,
        "step": failure.step if failure else "",
        "reason": failure.detail if failure else "",
        "addresses": list(facts.addresses),
        "rtt_milliseconds": None if rtt is None else round(rtt, 3),
        "clock_skew_seconds": None if facts.clock_skew_seconds is None else round(facts.clock_skew_seconds, 1),
        "at": clock(),
    }


class _Walk:
    """One walk: the connection so far, and what was found."""

    def __init__(self, cloud: Cloud, seconds: float, clock: Callable[[], float], stack: ExitStack) -> None:
        self.cloud = cloud
        self.parts: SplitResult = urlsplit(cloud.endpoint)
        self.host = self.parts.hostname or ""
        self.port = self.parts.port or (443 if self.parts.scheme == "https" else 80)
        self.seconds = seconds
        self.clock = clock
        self.stack = stack
        self.steps: list[Taken] = []
        self.addresses: list[str] = []
        self.skew: float | None = None
        self.server = ""
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        self.connection.auto_open = 0  # it would open again without TLS
        self.denied: _StepFailed | None = None  # a signature that is right, and may not list

    def go(self) -> None:
        steps: list[tuple[Step, Callable[[], str]]] = [("dns", self._resolve), ("tcp", self._connect)]
        if self.parts.scheme == "https":
            steps.append(("tls", self._handshake))
        steps.append(("http", self._ask))
        if self.cloud.sas_file or self.cloud.key_file or self.cloud.connection_string_file:
            steps += [("authorisation", self._authorise), ("list", self._list)]
        all(self._take(step, action) for step, action in steps)

    def _take(self, step: Step, action: Callable[[], str]) -> bool:
        begin = time.perf_counter()
        cause = detail = ""
        try:
            detail = action()
        except _StepFailed as failed:
            cause, detail = failed.cause, failed.detail
        except TimeoutError:
            cause, detail = "timeout", f"no answer within {self.seconds:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause, detail = (
                "broken",
                f"the connection broke: {getattr(error, 'strerror', None) or type(error).__name__}",
            )
        self.steps.append(Taken(step, (time.perf_counter() - begin) * 1000, cause, detail))
        return not cause

    def _resolve(self) -> str:
        try:
            self.addresses = deadline.call(lambda: addresses.resolve(self.host), self.seconds)
        except socket.gaierror as error:
            raise _StepFailed("no address", f"{self.host} has no address: {error.strerror}") from None
        return f"{self.host} is {', '.join(self.addresses)}"

    def _connect(self) -> str:
        """The first address that accepts, as an SDK does it; if none does, why the last one did not."""
        failure = _StepFailed("no address", f"{self.host} has no address")
        end = time.monotonic() + self.seconds
        for address in self.addresses:
            try:
                sock = socket.create_connection((address, self.port), timeout=max(end - time.monotonic(), 0.001))
            except TimeoutError:
                failure = _StepFailed("timeout", f"{address} port {self.port} gave no answer in time")
            except ConnectionRefusedError:
                failure = _StepFailed("refused", f"{address} port {self.port} refuses connections")
            except OSError as error:
                failure = _StepFailed("unreachable", f"{address} port {self.port}: {error.strerror}")
            else:
                sock.settimeout(self.seconds)
                self._use(sock)
                return f"{address} port {self.port}"
        raise failure

    def _use(self, sock: socket.socket) -> None:
        self.stack.callback(sock.close)
        self.connection.sock = sock

    def _handshake(self) -> str:
        try:
            context = ssl.create_default_context(cafile=self.cloud.ca_file)
        except OSError as error:  # an SSLError is one too
            raise _StepFailed("ca file", f"{self.cloud.ca_file} does not read: {error.strerror}") from None
        try:
            sock = context.wrap_socket(self.connection.sock, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            raise _StepFailed(_certificate_cause(error.verify_code), f"certificate: {error.verify_message}") from None
        except ssl.SSLError as error:
            raise _StepFailed("not tls", f"the handshake failed: {error.reason or 'closed'}") from None
        self._use(sock)
        return f"{sock.version()}"

    def _ask(self) -> str:
        """An unsigned request: every Blob service answers it, if only by a refusal, and says the time."""
        status, code = self._request()
        if status >= 500:
            raise _StepFailed("busy", f"answered {status} {code}".rstrip())
        if not code and "blob" not in self.server.lower() and status not in (200, 403):
            raise _StepFailed("not blob", f"answered {status} as {self.server or 'an unnamed server'}: no Blob service")
        return f"answers ({status} {code})".replace(" )", ")")

    def _authorise(self) -> str:
        what = "SAS"
        if self.cloud.sas_file:
            status, code = self._request(self._sas())
        else:
            sas, account, key = _read_credential(self.cloud)
            what = "SAS" if sas else "account key"
            if sas:
                _check_sas(sas, self.clock())
            status, code = self._request(sas, self._signed(account, key) if key else {})
        if status == 403 and code in _MAY_NOT_LIST:
            self.denied = _StepFailed("permission", f"the {what} may not list containers ({code})")
        elif status in (401, 403):
            cause = "key refused" if what != "SAS" and code == "AuthenticationFailed" else code or "forbidden"
            raise _StepFailed(cause, f"the {what} is refused ({status} {code})".replace(" )", ")"))
        elif status != 200:
            self.denied = _StepFailed("busy" if status >= 500 else "no list", f"answered {status} {code}".rstrip())
        return f"the {what} is accepted"

    def _sas(self) -> str:
        try:
            sas = Path(self.cloud.sas_file or "").read_text(encoding="ascii").strip().lstrip("?")
        except (OSError, ValueError):
            raise _StepFailed("no sas", f"{self.cloud.sas_file} does not read") from None
        _check_sas(sas, self.clock())
        return sas

    def _signed(self, account: str, key: bytes) -> dict[str, str]:
        """The headers of the request, signed with a key."""
        headers = {"x-ms-version": VERSION, "x-ms-date": formatdate(self.clock(), usegmt=True)}
        path = f"{self.parts.path}/"
        return {**headers, "Authorization": sign("GET", account, path, _LIST, headers, key)}

    def _list(self) -> str:
        if self.denied:
            raise self.denied
        return "containers are listed"

    def _request(self, sas: str = "", signed: Mapping[str, str] | None = None) -> tuple[int, str]:
        """(status, error code) of List Containers, one at most. Keeps the connection. Takes the skew on the way."""
        if self.connection.sock is None:  # the answer before ended the connection
            self._connect()
            if self.parts.scheme == "https":
                self._handshake()
        target = f"{self.parts.path}/?{urlencode(_LIST)}" + (f"&{sas}" if sas else "")
        begin = self.clock()
        self.connection.request("GET", target, headers={"x-ms-version": VERSION, **(signed or {})})
        answer = self.connection.getresponse()
        end = self.clock()
        answer.read(ERROR_BYTES_MAX)
        self.server = answer.headers.get("Server", "")
        date = answer.headers.get("Date")
        if date and self.skew is None:
            server_time = parsedate_to_datetime(date).timestamp() + _DATE_SECONDS / 2
            self.skew = (begin + end) / 2 - server_time
        return answer.status, answer.headers.get("x-ms-error-code", "")


def _read_credential(cloud: Cloud) -> tuple[str, str, bytes]:
    """(SAS, account, key) of a key or a connection string, read as the uploads read it: a SAS, or an account and its
    key. Raises _StepFailed."""
    from azure.core.credentials import AzureNamedKeyCredential

    from agent.offload.credentials import CloudSettings, Credentials  # late: only a node with a key needs the SDK

    if cloud.key_file:
        settings = CloudSettings(cloud.endpoint, "key_file", Path(cloud.key_file))
    else:
        settings = CloudSettings(cloud.endpoint, "connection_string_file", Path(cloud.connection_string_file or ""))
    try:
        credential = Credentials(settings).current()
    except OperatorError as error:
        raise _StepFailed("no credential", str(error)) from None
    if not isinstance(credential.signer, AzureNamedKeyCredential):
        return credential.sas, "", b""
    account, text = credential.signer.named_key
    try:
        return "", account, b64decode(text, validate=True)
    except binascii.Error:
        raise _StepFailed("no credential", f"the account key in {settings.file} is no base64") from None


def _certificate_cause(verify_code: int) -> str:
    """X509_V_ERR_* of OpenSSL's x509_vfy.h."""
    return {9: "not yet valid", 10: "expired", 62: "wrong name", 64: "wrong name"}.get(verify_code, "untrusted")


def _check_sas(sas: str, now: float) -> None:
    """Refuse a token that the cloud would refuse for its dates: its answer would not say which. REST page "Create an
    account SAS": st and se are ISO 8601 in UTC."""
    fields = parse_qs(sas)
    if "sig" not in fields:
        raise _StepFailed("no sas", "the file holds no SAS: it has no sig=")
    if not sas.isprintable() or " " in sas:
        raise _StepFailed("no sas", "the file holds more than a SAS: there are spaces or lines in it")
    for name, cause in (("se", "sas expired"), ("st", "sas not yet valid")):
        if name in fields:
            moment = _date(name, fields[name][0])
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            if (now >= seconds) == (name == "se"):
                raise _StepFailed(cause, f"the SAS {'ended' if name == 'se' else 'starts'} at {fields[name][0]}")


def _date(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _StepFailed("no sas", f"the SAS has a date that does not read: {name}={text[:40]}") from None
