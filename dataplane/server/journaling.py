"""From the commits of a worker to its journal: who changed what, one append before a group is published, one after.

A change is noted with the account whose store made it, which a job itself does not know: the same directory may be
mapped into two accounts, and each has a mount object of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from dataplane.journal.record import Entry, Kind, freed_name
from dataplane.journal.writer import Journal
from dataplane.store.commit import Job


class CommitJournal:
    """Notes the jobs that have a subject (store/commit.py, Witness). `accounts` has the account of each mount."""

    def __init__(self, journal: Journal, accounts: Mapping[object, str]) -> None:
        self._journal: Final = journal
        self._accounts: Final = accounts

    def before(self, jobs: Sequence[Job[Any]]) -> None:
        """Note what may be published now."""
        self._journal.append(self._entries(jobs, Kind.INTENT))

    def after(self, jobs: Sequence[Job[Any]]) -> None:
        """Note what is durable, and the stubs that went with it: in one append, so that whoever hears of a change knows
        what became of the stub."""
        self._journal.append([*self._entries(jobs, Kind.DONE), *self._freed(jobs)])

    def close(self) -> None:
        """After the last group."""
        self._journal.close()

    def _freed(self, jobs: Sequence[Job[Any]]) -> list[Entry]:
        entries: list[Entry] = []
        for job in jobs:
            subject, version = job.subject(), job.freed()
            if subject is not None and version:
                container, name = subject
                entries.append((Kind.FREED, self._accounts[job.mount], container, freed_name(name, version)))
        return entries

    def _entries(self, jobs: Sequence[Job[Any]], kind: Kind) -> list[Entry]:
        entries: list[Entry] = []
        for job in jobs:
            subject = job.subject()
            if subject is not None:
                container, name = subject
                entries.append((kind if name else Kind.CONTAINER, self._accounts[job.mount], container, name))
        return entries
