"""Print what a pytest run skipped, and why, as a table: `skips.py JUNIT.XML`. A skip nobody reads is a test lost."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path


def skips(report: Path) -> Counter[tuple[str, str]]:
    """Count the skipped tests by module and reason."""
    counted: Counter[tuple[str, str]] = Counter()
    for case in ET.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            module = case.get("classname", "") or case.get("name", "")
            counted[module, skipped.get("message", "no reason given")] += 1
    return counted


def main() -> None:
    counted = skips(Path(sys.argv[1]))
    if not counted:
        print("skipped: nothing")
        return
    width = max(len(module) for module, _ in counted)
    print(f"skipped: {counted.total()}")
    for (module, reason), number in sorted(counted.items()):
        print(f"  {number:5d}  {module:{width}}  {reason}")


if __name__ == "__main__":
    main()
