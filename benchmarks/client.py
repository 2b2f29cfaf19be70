"""A client: so many connections on loopback, each asking again once it is answered."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.workload import Asked

_PATIENCE_S = 900.0
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(slots=True)
class Run:
    """What a list of requests came to: seconds from the first to the last, and of each."""

    seconds: float = 0.0
    client_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return (len(self.latencies) - self.failed) / self.seconds


def ask_all(url: str, requests: Sequence[Asked], in_flight: int, pause_s: float = 0.0) -> Run:
    """Sends all requests in order, at most `in_flight` at a time; each must end in a PNG.

    A connection rests for `pause_s` before each of its requests.
    """
    bodies = [json.dumps(one.fields()).encode() for one in requests]
    run = Run(latencies=[0.0] * len(bodies))
    left = iter(range(len(bodies)))
    lock = threading.Lock()

    def go() -> None:
        connection = _connect(url)
        while True:
            with lock:
                index = next(left, None)
            if index is None:
                connection.close()
                return
            if pause_s:
                time.sleep(pause_s)
            begun = time.perf_counter()
            drawn = _ask(connection, url, bodies[index])
            run.latencies[index] = time.perf_counter() - begun
            if not drawn:
                with lock:
                    run.failed += 1

    threads = [threading.Thread(target=go) for _ in range(min(in_flight, len(bodies)))]
    cpu, begun = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.seconds = time.perf_counter() - begun
    run.client_cpu = time.process_time() - cpu
    return run


def _connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=_PATIENCE_S)


def _ask(connection: http.client.HTTPConnection, url: str, body: bytes) -> bool:
    headers = {"Content-Type": "application/json", "Accept": "image/png"}
    connection.request("POST", urlsplit(url).path, body, headers)
    answer = connection.getresponse()
    return answer.read().startswith(PNG) and answer.status == http.client.OK
