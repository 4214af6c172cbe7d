"""A client that stops in the middle: `waiting.py queue|upload HOST PORT PATH?SAS`.

It sends what it sends at first and says "sent"; at a line on standard input it goes on, and prints the statuses of all
answers. `queue`: whole GETs on COUNT connections. `upload`: half of a PUT on one.
"""

import http.client
import sys
from typing import Final

COUNT: Final = 40
HALF: Final = b"x" * 65536
ANSWER_SECONDS_MAX: Final = 120.0


def queue(host: str, port: int, target: str) -> list[int]:
    connections = [http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX) for _ in range(COUNT)]
    for connection in connections:
        connection.request("GET", target, headers={"x-ms-version": "2021-12-02"})
    wait()
    return [status(connection) for connection in connections]


def upload(host: str, port: int, target: str) -> list[int]:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS_MAX)
    connection.putrequest("PUT", target)
    headers = {"x-ms-version": "2021-12-02", "x-ms-blob-type": "BlockBlob", "Content-Length": str(2 * len(HALF))}
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(HALF)
    wait()
    connection.send(HALF)
    return [status(connection)]


def wait() -> None:
    print("sent", flush=True)
    sys.stdin.readline()


def status(connection: http.client.HTTPConnection) -> int:
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


if __name__ == "__main__":
    kind, host, port, target = sys.argv[1:]
    print(*(queue if kind == "queue" else upload)(host, int(port), target))
