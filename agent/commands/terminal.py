"""Words for people: text from elsewhere, and how many there are of something."""

import json


def shown(text: str) -> str:
    """The text, or with escapes where a terminal would do something else than show it."""
    return text if text.isprintable() else json.dumps(text)


def counted(count: int, one: str) -> str:
    """`1 blob`, `2,000 blobs`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
