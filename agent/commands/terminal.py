"""Text from elsewhere on a terminal."""

import json


def shown(text: str) -> str:
    """The text, or with escapes where a terminal would do something else than show it."""
    return text if text.isprintable() else json.dumps(text)
