"""A latency peer that shares nothing with the load generator: plain sockets in plain threads.

    python tests/loadtests/peer.py HOST PORT PATH THREADS REQUESTS

Each thread has a connection, and sends its next request when it has its answer. Prints a JSON list
of [when it was sent, how long the answer took], in nanoseconds. The threads begin at even distances
over the time of one answer, so that they do not all come at once.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time


def answered(connection: socket.socket, request: bytes) -> tuple[int, int]:
    """From the first byte sent to the last one received."""
    begun = time.perf_counter_ns()
    connection.sendall(request)
    got = b""
    while (end := got.find(b"\r\n\r\n")) < 0:
        got += connection.recv(65536)
    found = re.search(rb"Content-Length: (\d+)", got)
    whole = end + 4 + (int(found[1]) if found else 0)
    while len(got) < whole:
        got += connection.recv(65536)
    return begun, time.perf_counter_ns() - begun


def main() -> None:
    host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    threads, requests = int(sys.argv[4]), int(sys.argv[5])
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    found: list[tuple[int, int]] = []
    with socket.create_connection((host, port)) as first:
        _, once = answered(first, request)

    def work(number: int) -> None:
        with socket.create_connection((host, port)) as connection:
            time.sleep(once / 1e9 * number / threads)
            found.extend([answered(connection, request) for _ in range(requests)])

    everybody = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in everybody:
        each.start()
    for each in everybody:
        each.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
