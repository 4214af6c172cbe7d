"""Rounds: every case runs A B C A B C ..., and each run starts on a disk without dirty pages."""

import functools
import gc
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .azure import OperationFailed
from .cases import Case, Sample, Settings
from .peers import Endpoint
from .proctree import tree_cpu_s
from .wire import WireError
from .wrk import WrkFailed

CASE_ERRORS = (OperationFailed, WireError, WrkFailed, OSError, ValueError)


@dataclass(slots=True)
class PeerResult:
    """The samples of one peer in one case, with the CPU seconds of each; or why there are none."""

    samples: list[Sample] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    error: str | None = None

    def rate(self) -> float | None:
        """Return the median rate in the case's unit."""
        return statistics.median(sample.rate for sample in self.samples) if self.samples else None

    def busy(self) -> float | None:
        """Return the median share of its core the server used: well below 1 means that it waited for
        the client, the disk, or a neighbour on the machine."""
        if not self.samples:
            return None
        pairs = zip(self.cpu_s, self.samples, strict=True)
        return statistics.median(cpu / sample.elapsed_s for cpu, sample in pairs)

    def cpu_per_request_us(self) -> float | None:
        """Return the median CPU time per request in microseconds, user plus system, of the process tree."""
        if not self.samples:
            return None
        pairs = zip(self.cpu_s, self.samples, strict=True)
        return statistics.median(cpu / max(1, sample.requests) for cpu, sample in pairs) * 1e6


@dataclass(slots=True)
class CaseResult:
    """One case over all peers, and what follows for the target."""

    case: Case
    peers: dict[str, PeerResult]

    def ratios(self, subject: str = "blobedge") -> list[float]:
        """Return, round by round, the rate of `subject` over that of the reference peer."""
        ours, theirs = (self.peers[name].samples for name in (subject, self.case.reference))
        return [a.rate / b.rate for a, b in zip(ours, theirs, strict=False) if b.rate]

    def ratio(self) -> float | None:
        """Return the median of the rounds' ratios. Not the ratio of the medians: two runs of one round share
        the machine's mood, runs of different rounds do not."""
        ratios = self.ratios()
        return statistics.median(ratios) if ratios else None

    def ratio_range(self) -> tuple[float, float] | None:
        """Return the lowest and highest ratio of one round: how far the median can be trusted."""
        ratios = self.ratios()
        return (min(ratios), max(ratios)) if ratios else None

    def verdict(self) -> str:
        """Return PASS, MISS or, where a peer is missing, `n/a`."""
        ratio = self.ratio()
        if ratio is None:
            return "n/a"
        failed = any(sample.failed for sample in self.peers["blobedge"].samples)
        return "PASS" if ratio >= self.case.target_ratio and not failed else "MISS"


def run_case(
    case: Case,
    endpoints: dict[str, Endpoint],
    missing: dict[str, str],
    settings: Settings,
    rounds: int,
    progress: Callable[[str], None],
) -> CaseResult:
    """Prepare every peer, run the rounds, and return all samples; a failing peer drops out of its case."""
    result = CaseResult(case, {name: PeerResult(error=missing.get(name)) for name in case.peers})
    for name in case.peers:
        if name in endpoints:
            progress(f"{case.title}: preparing {name}")
            attempt(result.peers[name], functools.partial(case.prepare, endpoints[name], settings))
    for number in range(1, rounds + 1):
        for name in in_the_running(case, endpoints, result):
            progress(f"{case.title}: round {number} of {rounds}, {name}")
            peer = result.peers[name]
            attempt(peer, functools.partial(timed_run, case, endpoints[name], settings, peer))
    return result


def in_the_running(case: Case, endpoints: dict[str, Endpoint], result: CaseResult) -> Sequence[str]:
    """Return the peers of a case that run and have not failed in it."""
    return [name for name in case.peers if name in endpoints and result.peers[name].error is None]


def attempt(peer: PeerResult, step: Callable[[], None]) -> None:
    """Do one step for a peer; an operating error takes the peer out of the case with its reason."""
    try:
        step()
    except CASE_ERRORS as error:
        peer.error = f"{type(error).__name__}: {error}"


def timed_run(case: Case, endpoint: Endpoint, settings: Settings, peer: PeerResult) -> None:
    """One timed run with its CPU time, then the untimed removal of what it wrote."""
    # Azurite leaves half a gigabyte of dirty pages behind a block upload: without this the next peer's
    # fsync would pay for them.
    os.sync()
    gc.collect()
    before_s = tree_cpu_s(endpoint.pid)
    sample = case.run(endpoint, settings)
    peer.cpu_s.append(tree_cpu_s(endpoint.pid) - before_s)
    peer.samples.append(sample)
    case.clean_round(endpoint)
