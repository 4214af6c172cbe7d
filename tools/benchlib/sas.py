"""An account SAS, signed here so that the benchmark depends on no code of the server it measures.

Rule: REST page "Create an account SAS", "Construct the signature string": ten fields, each followed by a
newline, from version 2020-12-06 on with the encryption scope as the last one.
"""

import base64
import datetime as dt
import hashlib
import hmac
import urllib.parse

SIGNED_VERSION = "2021-12-02"
SIGNED_PERMISSIONS = "rwdlac"
SIGNED_SERVICES = "b"
SIGNED_RESOURCE_TYPES = "sco"
SIGNED_PROTOCOL = "https,http"


def account_sas(account: str, key: str, expiry: dt.datetime) -> str:
    """Return the query string of a SAS for every blob operation the benchmark uses.

    `key` is the account key in base64; `expiry` an aware time, rounded down to whole seconds.
    """
    signed_expiry = expiry.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signed_start = signed_ip = encryption_scope = ""
    fields = (
        account,
        SIGNED_PERMISSIONS,
        SIGNED_SERVICES,
        SIGNED_RESOURCE_TYPES,
        signed_start,
        signed_expiry,
        signed_ip,
        SIGNED_PROTOCOL,
        SIGNED_VERSION,
        encryption_scope,
    )
    string_to_sign = "".join(field + "\n" for field in fields)
    digest = hmac.new(base64.b64decode(key), string_to_sign.encode(), hashlib.sha256).digest()
    return urllib.parse.urlencode(
        {
            "sv": SIGNED_VERSION,
            "ss": SIGNED_SERVICES,
            "srt": SIGNED_RESOURCE_TYPES,
            "sp": SIGNED_PERMISSIONS,
            "se": signed_expiry,
            "spr": SIGNED_PROTOCOL,
            "sig": base64.b64encode(digest).decode(),
        }
    )
