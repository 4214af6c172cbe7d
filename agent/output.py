"""Standard output that remembers its own failure, so that the command line can tell it from any other error.

Rejected: taking each OSError without a file name for one of the output (it may be a bug, which has a traceback);
SIGPIPE as the shell's tools have it (a service that closes its socket would end the command in silence).
"""

import io
import os
from typing import Any, TextIO


class Output:
    """The stream, with `failed`: the error of the first write that failed, which was raised as it is."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()  # None: this process was started without one
        self.failed: OSError | None = None

    def write(self, text: str) -> int:
        """As a stream. Raises OSError."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """As a stream. Raises OSError."""
        try:
            self._stream.flush()
        except OSError as error:
            self.failed = error
            raise

    def drop(self) -> None:
        """Forget what could not be written: the end of the process would try it again, and complain."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
