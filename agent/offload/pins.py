"""Pins outlive the queue's database: what was pinned and unpinned, by prefix, in a small file beside it.

A row says whether its blob is pinned. When a database is made anew, each row that is made before mounts and cloud were
compared is pinned by the file, in the transaction that makes it: nothing evicts or deletes a blob in between. What was
written beneath a prefix after it was pinned is pinned then too: too much stays here, never too little.

An act that covers earlier ones takes their place, so the file has what counts: the last act that covers a blob. It is
written before the rows are changed. One that cannot be read is told in the log and counts as empty.

Rejected: a property of the blob's record (a million records written for one command), all pinned names (a file as
large as the database).
"""

import json
import logging
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agent.offload.schema import COMPARED_KEY
from agent.offload.wholefile import write_whole

log = logging.getLogger("blobedge.offload")

FILE: Final = "pins.json"  # in the queue's directory
_TRIGGER: Final = f"""
CREATE TEMP TRIGGER pins AFTER INSERT ON main.blobs
WHEN NOT EXISTS (SELECT 1 FROM main.meta WHERE key = 'said:{COMPARED_KEY}')
BEGIN
    UPDATE blobs SET pinned = 1 WHERE id = NEW.id AND
        (SELECT is_pinned(account, container, NEW.name) FROM containers WHERE id = NEW.container_id);
END
"""


class Prefix(NamedTuple):
    """Blobs whose names begin alike; "" for all accounts, all containers."""

    account: str
    container: str
    name: str

    def covers(self, other: "Prefix") -> bool:
        """Whether all of the other's blobs are among these."""
        alike = self.account in ("", other.account) and self.container in ("", other.container)
        return alike and other.name.startswith(self.name)


class Pins:
    """The file at `path`. For one thread at a time; blocks on the disk."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path
        self._acts: dict[Prefix, tuple[int, bool]] = {}  # in which order, and whether it pins
        try:
            for *prefix, pinned in json.loads(path.read_text("ascii")):
                self._acts[Prefix(*prefix)] = len(self._acts), bool(pinned)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:
            aside = path.with_suffix(".unreadable")
            with suppress(OSError):
                path.rename(aside)  # the next pin does not write over what somebody may still mend
            log.error("%s cannot be read, so pins that a lost database had are unknown: %s; see %s", path, error, aside)
        self._lengths: Final = {len(prefix.name) for prefix in self._acts}

    def note(self, prefix: Prefix, *, pinned: bool) -> None:
        """Blobs with this prefix were pinned or unpinned. Raises OSError: nothing is changed then."""
        acts = {each: said for each, said in self._acts.items() if not prefix.covers(each)}
        if pinned or any(each.covers(prefix) for each in acts):
            acts[prefix] = max((number for number, _ in acts.values()), default=0) + 1, pinned
        write_whole(self._path, json.dumps([[*each, pinned] for each, (_, pinned) in acts.items()]))
        self._acts = acts
        self._lengths.add(len(prefix.name))

    def has(self, account: str, container: str, name: str) -> bool:
        """Whether the last act that covers a blob pinned it."""
        starts = {name[:length] for length in self._lengths}
        places = ((account, container), (account, ""), ("", container), ("", ""))
        found = [said for place in places for start in starts if (said := self._acts.get(Prefix(*place, start)))]
        return max(found, default=(0, False))[1]

    def apply_to(self, connection: sqlite3.Connection) -> None:
        """Have rows that are made from now on pinned, until mounts and cloud were compared for the first time."""
        if self._acts:
            connection.create_function("is_pinned", 3, self.has)
            connection.execute(_TRIGGER)
