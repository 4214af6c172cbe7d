"""The certificate of the https listeners: names, chain, validity, and its key.

The chain is checked as a client sees it that knows root authorities only: every certificate must be signed by the next
one of the file. Whether the last one's issuer is trusted is the clients' affair, so it is told, not judged.
"""

import datetime
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from agent.config import Tls
from agent.doctor.findings import Finding

CHECK: Final = "tls"
RENEW: Final = "renew it, then systemctl reload blobedge (docs/runbooks/certificate-renewal.md)"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the two files hold."""

    names: tuple[str, ...]  # DNS names and addresses of the first certificate
    not_before: datetime.datetime
    not_after: datetime.datetime
    issuer: str  # of the last certificate
    count: int
    self_signed: bool  # the first certificate signs itself
    broken_at: int  # index of the first certificate that the next one has not signed; -1: none
    key_error: str  # why the key does not go with the certificate, "" if it does
    key_mode: int  # permission bits of the key file


def observe(tls: Tls) -> CertificateFacts:
    """Read both files. Raises OSError, and ValueError if the certificates do not read."""
    chain = x509.load_pem_x509_certificates(Path(tls.cert).read_bytes())
    leaf = chain[0]
    return CertificateFacts(
        names=_names(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=min(each.not_valid_after_utc for each in chain),
        issuer=chain[-1].issuer.rfc4514_string(),
        count=len(chain),
        self_signed=_signed_by(leaf, leaf),
        broken_at=next((at for at in range(len(chain) - 1) if not _signed_by(chain[at], chain[at + 1])), -1),
        key_error=_key_error(tls),
        key_mode=stat.S_IMODE(Path(tls.key).stat().st_mode),
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    found = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    return tuple(name.lower() for name in found)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _key_error(tls: Tls) -> str:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        return str(getattr(error, "reason", "") or error)
    return ""


def matches(pattern: str, name: str) -> bool:
    """Whether a name of a certificate covers a host name: equal, or `*` for its first label (RFC 9525 section 6.3)."""
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


def judge(facts: CertificateFacts, wanted: Sequence[str], days_min: int, now: datetime.datetime) -> list[Finding]:
    """Judge the certificate for the names that clients use."""
    findings = [_validity(facts, days_min, now), *_chain(facts), *_key(facts)]
    missing = [name for name in wanted if not any(matches(pattern, name) for pattern in facts.names)]
    has = ", ".join(facts.names) or "no name"
    if missing:
        what = f"does not cover {', '.join(missing)} (it has {has}): https clients of these names refuse it"
        findings.append(Finding(CHECK, "warning", what, f"reissue it with subjectAltName {_alternative(missing)}"))
    else:
        findings.append(Finding(CHECK, "ok", f"covers {has}"))
    return findings


def _alternative(names: Sequence[str]) -> str:
    return ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


def _validity(facts: CertificateFacts, days_min: int, now: datetime.datetime) -> Finding:
    until = f"{facts.not_after:%Y-%m-%d %H:%M} UTC"
    if now < facts.not_before:
        what = f"not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"
        return Finding(CHECK, "problem", what, "correct this machine's clock (date -u), or reissue the certificate")
    if now >= facts.not_after:
        return Finding(CHECK, "problem", f"expired at {until}", RENEW)
    days = (facts.not_after - now).days
    if days < days_min:
        return Finding(CHECK, "warning", f"expires in {days} days, at {until}", RENEW)
    return Finding(CHECK, "ok", f"valid for {days} days, until {until}")


def _chain(facts: CertificateFacts) -> list[Finding]:
    if facts.broken_at >= 0:
        at = facts.broken_at + 1
        what = f"certificate {at} of the file is not signed by certificate {at + 1}: clients cannot build the chain"
        return [
            Finding(CHECK, "problem", what, "order the file: the node's own, then each issuer (cat leaf.pem ca.pem)")
        ]
    if facts.self_signed:
        what = "signed by itself: only clients that trust this very certificate accept it"
        return [
            Finding(
                CHECK,
                "note",
                what,
                "give clients the file (SSL_CERT_FILE; Python: REQUESTS_CA_BUNDLE), or use an authority that they know",
            )
        ]
    return [Finding(CHECK, "ok", f"chain of {facts.count}, ending below {facts.issuer}")]


def _key(facts: CertificateFacts) -> list[Finding]:
    findings = []
    if facts.key_error:
        mend = "use the key that the request was made with: openssl x509 -pubkey -noout and openssl pkey -pubout agree"
        findings.append(Finding(CHECK, "problem", f"key and certificate do not go together: {facts.key_error}", mend))
    if facts.key_mode & 0o007:
        what = f"every user may open the private key (mode {facts.key_mode:04o})"
        findings.append(Finding(CHECK, "warning", what, "chmod o-rwx on the key file"))
    return findings
