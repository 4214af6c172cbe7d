"""The troubles of a fault cycle, and the order in which a run meets them: pure, from a seed.

A run goes through all troubles before it meets one again, so a short run has each kind about as often as a long one.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from .cloud import Lab
from .faults import BUSY, DONE_BUT_500, EXPIRED_SAS, INTERNAL_ERROR, THROTTLED, Act, Fault
from .link import Link

SHARE: Final = 0.5  # of the requests that a fault of the proxy befalls: the others make the order of things differ
LOSS_PERCENT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A name for reports, and what begins it; Lab.heal ends it."""

    name: str
    begin: Callable[[Lab], None]


def _of_link(name: str, begin: Callable[[Link], None]) -> Trouble:
    return Trouble(name, lambda lab: begin(lab.link))


def _of_proxy(name: str, fault: Fault) -> Trouble:
    return Trouble(name, lambda lab: lab.proxy.meet(fault.only(SHARE)))


LINK_TROUBLES: Final = (
    _of_link("cut", Link.cut),
    _of_link("unplug", Link.unplug),
    _of_link("drop", Link.drop),
    _of_link("reset", Link.reset),
    _of_link("blackhole", Link.blackhole),
    _of_link("lose", lambda link: link.lose(LOSS_PERCENT)),
)
PROXY_TROUBLES: Final = (
    _of_proxy("500", INTERNAL_ERROR),
    _of_proxy("503", BUSY),
    _of_proxy("429", THROTTLED),
    _of_proxy("403 expired", EXPIRED_SAS),
    _of_proxy("done but 500", DONE_BUT_500),
    *(_of_proxy(act, Fault(act)) for act in Act if act not in (Act.REFUSE, Act.REFUSE_LATE)),
)


def deck(seed: int, count: int, troubles: Sequence[Trouble] = LINK_TROUBLES + PROXY_TROUBLES) -> Iterator[Trouble]:
    """Yield `count` troubles: shuffled, each once, then shuffled again."""
    return islice(_rounds(random.Random(seed), troubles), count)


def _rounds(chance: random.Random, troubles: Sequence[Trouble]) -> Iterator[Trouble]:
    while True:
        yield from chance.sample(troubles, len(troubles))
