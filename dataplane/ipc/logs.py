"""How the processes write their own logs to standard error: as text for people, or one JSON object per line.

Guarantees of JSON: every record is one line of ASCII, its traceback a field, so nothing that is logged can forge a
second record. Records may carry more fields: `log.warning(text, extra={"fields": {"correlationId": request_id}})`;
`correlationId` is the request's id, named as in the access log so that both can be searched for one request.

Where standard error is the journal (systemd says so by JOURNAL_STREAM), every line starts with its priority as
sd-daemon(3) has it, `<3>` for an error; the journal takes it off again. In text, every line of a traceback does.

Rejected: python-json-logger (what is left of it for us are these thirty lines), the journal's own protocol (fields
would need no JSON, but standard error is also what a terminal, a container and a test can read).
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO

from dataplane.ipc.settings import LogFormat

#: The least level with each priority of syslog(3), the greatest first.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7


class _Text(logging.Formatter):
    """`2026-01-31 12:00:00,000 WARNING worker 0: text`; a process without a number is named by the logger."""

    def __init__(self, process: str, number: int | None) -> None:
        name = "%(name)s" if number is None else f"{process} {number}"
        super().__init__(f"%(asctime)s %(levelname)s {name}: %(message)s")


class _Json(logging.Formatter):
    """An object per record: time, level, process, number, pid, logger, message, traceback, and the record's fields."""

    def __init__(self, process: str, number: int | None) -> None:
        super().__init__()
        self._process: dict[str, object] = {"process": process}
        if number is not None:
            self._process["number"] = number
        self._process["pid"] = os.getpid()

    def format(self, record: logging.LogRecord) -> str:
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        line: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            **self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        more = {name: value for name, value in fields.items() if name not in line}
        return json.dumps({**line, **more}, default=str)


class _Prioritised(logging.Formatter):
    """What another formatter makes, each line with its priority for the journal."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(mark + line for line in self._inner.format(record).split("\n"))


def priority(level: int) -> int:
    """The priority of syslog(3) for a level of logging."""
    return next((found for least, found in _PRIORITIES if level >= least), _DEBUG_PRIORITY)


def formatter(style: LogFormat, process: str, number: int | None = None, *, journal: bool = False) -> logging.Formatter:
    """Formats the records of one process. `number` is a worker's; `journal`: lines start with their priority."""
    inner = _Json(process, number) if style == "json" else _Text(process, number)
    return _Prioritised(inner) if journal else inner


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is the one to the journal that systemd has opened: JOURNAL_STREAM is its DEVICE:INODE.
    The variable is inherited, also by a process whose standard error then went elsewhere, so both have to agree."""
    expected = environ.get("JOURNAL_STREAM")
    if not expected:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or nothing that the kernel knows
        return False
    return expected == f"{status.st_dev}:{status.st_ino}"


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that `configure` knows which one to replace."""


def configure(style: LogFormat, level: str, process: str, number: int | None, stream: TextIO) -> None:
    """Write this process's records from `level` on to `stream`. May be called again, after a reload."""
    handler = _Handler(stream)
    handler.setFormatter(formatter(style, process, number, journal=is_journal(stream, os.environ)))
    root = logging.getLogger()
    root.handlers = [*(each for each in root.handlers if not isinstance(each, _Handler)), handler]
    root.setLevel(level.upper())
