"""Load without any retry: `load_raw.py URL SAS`. A new connection for every request, so that none hides a refusal.

What happens between the death of one process and the start of the next shows here and nowhere else: a connection that
is refused or reset, or an answer that is cut short, is a failure.
"""

import http.client
import random
import sys
from urllib.parse import urlsplit

from tests.systemd.load_loop import repeat

CONTAINER = "raw"
BODY_BYTES = 8 << 10
ANSWER_SECONDS_MAX = 60.0  # a queued connection waits for the whole restart


def main(url: str, sas: str) -> None:
    address = urlsplit(url)

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address.netloc, timeout=ANSWER_SECONDS_MAX)
        try:
            target = f"{address.path}/{path}{'&' if '?' in path else '?'}{sas}"
            headers = {"x-ms-version": "2021-12-02", "x-ms-blob-type": "BlockBlob", "Content-Length": str(len(body))}
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def operation(index: int) -> None:
        content = random.randbytes(BODY_BYTES)
        name = f"{CONTAINER}/{index % 4}"
        status, answer = ask("PUT", name, content)
        if status != http.client.CREATED:
            raise ValueError(f"PUT: {status} {answer[:200]!r}")
        status, answer = ask("GET", name)
        if (status, answer) != (http.client.OK, content):
            raise ValueError(f"GET: {status}, {len(answer)} bytes")

    ask("PUT", f"{CONTAINER}?restype=container")
    repeat(operation)


if __name__ == "__main__":
    main(*sys.argv[1:])
