"""How a present value and a wanted one become one: the rules that settings.py names, for a plan and for a boot.

Pure. No rule makes anything worse than it is: the result is the better of the two, or the present one where it is
somebody's choice.
"""

from agent.tuning import ports
from agent.tuning.settings import KERNEL_CONGESTION, KERNEL_QDISCS, UNSET_MASK, setting_of


def at_least(present: str, goal: str) -> str:
    """The greater one, number by number. Raises ValueError if they differ in how many they are."""
    pairs = zip(numbers(present), numbers(goal), strict=True)
    return " ".join(str(max(pair)) for pair in pairs)


def widened(present: str, goal: str) -> str:
    """The least range `LOW HIGH` that has both."""
    low, high = numbers(present)
    wanted_low, wanted_high = numbers(goal)
    return f"{min(low, wanted_low)} {max(high, wanted_high)}"


def union(present: str, goal: str) -> str:
    """The ports of both lists."""
    return ports.text(ports.parse(present) | ports.parse(goal))


def numbers(text: str) -> list[int]:
    """The numbers of a value."""
    return [int(word) for word in text.split()]


def at_boot(key: str, found: str, recorded: str) -> str:
    """What a key is to be that was applied as `recorded` and is `found` after a boot: never less than is there.

    Where a later file of the administrator has more, or another word, it stays. Raises ValueError if a kernel has
    changed the form of the value.
    """
    row = setting_of(key)
    if row is None:
        return found
    if row.combine == "at-least":
        return at_least(found, recorded)
    if row.combine == "below":
        return str(min(int(found), int(recorded)))
    if row.combine == "widen":
        return widened(found, recorded)
    if row.combine == "union":
        return union(found, recorded)
    unchosen = found in (UNSET_MASK, *KERNEL_QDISCS, *KERNEL_CONGESTION)
    return recorded if unchosen else found
