"""Shared access signatures for rows, written against the REST pages "Create an account SAS" and "Create a service SAS".

Nothing of the product is used, so a mistake in its reading of those pages cannot hide behind the same mistake here.
"""

import base64
import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

VERSION: Final = "2022-11-02"
LIFE: Final = dt.timedelta(hours=1)
_ACCOUNT_FIELDS: Final = ("sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses")
_SERVICE_FIELDS: Final = ("sp", "st", "se")
_OVERRIDES: Final = ("rscc", "rscd", "rsce", "rscl", "rsct")


def expiry(now: dt.datetime) -> str:
    """An expiry time that lies safely ahead of `now`."""
    return (now + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")


def account_sas(account: str, key: str, fields: Mapping[str, str], now: dt.datetime) -> dict[str, str]:
    """The query of an account SAS; `fields` go over the defaults, and a `sig` of theirs stays."""
    token = {"sv": VERSION, "ss": "b", "srt": "sco", "sp": "rwdlacupitfx", "se": expiry(now), **fields}
    lines = [account, *(token.get(name, "") for name in _ACCOUNT_FIELDS)]
    return {"sig": _signature(key, "\n".join(lines) + "\n"), **token}


def service_sas(account: str, key: str, fields: Mapping[str, str], path: str, now: dt.datetime) -> dict[str, str]:
    """The query of a service SAS for `/container` or `/container/blob`. With `si` permissions and expiry are the stored
    policy's, unless `fields` has them."""
    defaults = {"sv": VERSION, "sr": "c"} | ({} if "si" in fields else {"sp": "r", "se": expiry(now)})
    token = {**defaults, **fields}
    get = token.get
    lines = [
        *(get(name, "") for name in _SERVICE_FIELDS),
        f"/blob/{account}{path}",
        *(get(name, "") for name in ("si", "sip", "spr", "sv", "sr")),
        get("snapshot", "") if token["sr"] == "bs" else "",
        get("ses", ""),
        *(get(name, "") for name in _OVERRIDES),
    ]
    return {"sig": _signature(key, "\n".join(lines)), **token}


def _signature(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
