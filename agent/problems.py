"""What an operator did wrong, as values: every mistake with its place, and the one exception that carries them.

An OperatorError is not a bug: the command line prints its lines without a traceback and exits with EXIT_CONFIG: trying
again cannot help (a systemd unit names it in RestartPreventExitStatus).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is (`FILE:LINE`, or the flag that said it; "" when neither), and how to mend it."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


class OperatorError(Exception):
    """One or more mistakes that only the operator can mend."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))
