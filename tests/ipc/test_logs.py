"""The processes' own logs: one JSON object per record, and the priority that the journal reads."""

import io
import json
import logging
import os
import re
import sys
from pathlib import Path

import pytest

from dataplane.ipc import logs
from dataplane.ipc.settings import LogFormat

FORGED = 'text\n{"level":"critical"} "quoted" \u2028 \x1b[31m'


def record(message: str, level: int = logging.WARNING, **more: object) -> logging.LogRecord:
    return logging.getLogger("test.logs").makeRecord("test.logs", level, "file.py", 1, message, (), None, None, more)


def failed_record() -> logging.LogRecord:
    try:
        raise ValueError(FORGED)
    except ValueError:
        return logging.LogRecord("test.logs", logging.ERROR, "file.py", 1, "request %s failed", ("r1",), sys.exc_info())


def test_a_record_is_one_object() -> None:
    line = json.loads(logs.formatter("json", "worker", 3).format(record("hello")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning", "process": "worker", "number": 3, "pid": os.getpid(), "logger": "test.logs",
        "message": "hello",
    }  # fmt: skip
    assert "number" not in json.loads(logs.formatter("json", "supervisor").format(record("hello")))


def test_fields_are_added_and_replace_nothing() -> None:
    fields = {"correlationId": "r1", "queueMs": 1.5, "level": "forged", "odd": Path("/x")}
    line = json.loads(logs.formatter("json", "worker", 0).format(record("hello", fields=fields)))
    assert (line["correlationId"], line["queueMs"], line["level"], line["odd"]) == ("r1", 1.5, "warning", "/x")


@pytest.mark.parametrize("journal", [False, True])
def test_nothing_that_is_logged_makes_a_second_record(journal: bool) -> None:
    formatter = logs.formatter("json", "worker", 0, journal=journal)
    for each in (record(FORGED), failed_record()):
        text = formatter.format(each)
        assert text.isascii()
        assert len(text.splitlines()) == 1
        found = json.loads(text[len("<3>") :] if journal else text)
        assert FORGED in (found["message"], found.get("traceback", "")[-len(FORGED) :])


@pytest.mark.parametrize(
    ("level", "expected"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2), (35, 4)],
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_the_journal_gets_the_priority_of_each_record(style: LogFormat, level: int, expected: int) -> None:
    text = logs.formatter(style, "worker", 0, journal=True).format(record("hello", level))
    assert text.startswith(f"<{expected}>")


def test_every_line_of_a_traceback_has_its_priority() -> None:
    lines = logs.formatter("text", "worker", 0, journal=True).format(failed_record()).split("\n")
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    assert "ERROR worker 0: request r1 failed" in lines[0]


def test_text_names_a_process_without_a_number_by_its_logger() -> None:
    text = logs.formatter("text", "supervisor").format(record("hello"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING test\.logs: hello", text)


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert logs.is_journal(stream, environ)
        assert not logs.is_journal(other, environ)  # inherited, but redirected since
        assert not logs.is_journal(stream, {})
    assert not logs.is_journal(stream, environ)
    assert not logs.is_journal(io.StringIO(), environ)


def test_configured_again_it_writes_once(tmp_path: Path) -> None:
    root = logging.getLogger()
    found, level = root.handlers, root.level
    before = [each for each in found if type(each).__module__ != logs.__name__]  # a command may have left one
    root.handlers = list(before)
    try:
        with (tmp_path / "log").open("w") as stream:
            logs.configure("text", "info", "worker", 0, stream)
            logs.configure("json", "warning", "worker", 0, stream)
            logging.getLogger("test.logs").info("too low")
            logging.getLogger("test.logs").warning("said")
        assert [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()] == ["said"]
        assert root.handlers[:-1] == before
    finally:
        root.handlers, root.level = found, level


def test_a_stream_without_a_descriptor_is_no_journal() -> None:
    """As pytest and embedding programs may have put one in the place of standard error."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    try:
        logs.configure("json", "info", "sidecar", None, stream)
        logging.getLogger("test.logs").info("said")
    finally:
        root.handlers, root.level = before, level
    assert json.loads(stream.getvalue())["process"] == "sidecar"
