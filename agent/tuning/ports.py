"""Lists of ports as the kernel writes them: `8080,9000-9002`."""

from itertools import groupby


def parse(text: str) -> frozenset[int]:
    """The ports of a list. Raises ValueError for what is none."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        ports.update(range(int(low), int(high or low) + 1))
    return frozenset(ports)


def text(ports: frozenset[int]) -> str:
    """The shortest list, in the kernel's order and form."""
    runs = groupby(enumerate(sorted(ports)), key=lambda numbered: numbered[1] - numbered[0])
    spans = [[port for _, port in run] for _, run in runs]
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
