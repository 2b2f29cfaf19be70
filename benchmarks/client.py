"""A client: so many connections on loopback, each asking again once it is answered."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
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

    return _asked(url, bodies, in_flight, lambda body: body.startswith(PNG), pause_s)


def ask_triton(url: str, requests: Sequence[Asked], in_flight: int) -> Run:
    """The same of a Triton's `generate`, whose PNGs are in JSON."""
    bodies = [json.dumps({**one.fields(), "encoding": "base64"}).encode() for one in requests]
    start = base64.b64encode(PNG[:6])
    return _asked(url, bodies, in_flight, lambda body: b'"images":"' + start in body)


def _asked(
    url: str,
    bodies: Sequence[bytes],
    in_flight: int,
    is_drawn: Callable[[bytes], bool],
    pause_s: float = 0.0,
) -> Run:
    def ask(connection: http.client.HTTPConnection, index: int) -> tuple[float, bool]:
        if pause_s:
            time.sleep(pause_s)
        begun = time.perf_counter()
        drawn = is_drawn(_ask(connection, url, bodies[index]))
        return time.perf_counter() - begun, drawn

    return timed(lambda: connect(url), ask, len(bodies), in_flight)


Connected = Callable[[], http.client.HTTPConnection]
Task = Callable[[http.client.HTTPConnection, int], tuple[float, bool]]


def timed(connected: Connected, task: Task, count: int, in_flight: int) -> Run:
    """Runs a task for each index, on at most `in_flight` threads with a connection each.

    A task tells its seconds, and whether it went well.
    """
    left = iter(range(count))
    lock = threading.Lock()
    found: list[tuple[float, bool]] = [(0.0, False)] * count

    def go() -> None:
        connection = connected()
        while True:
            with lock:
                index = next(left, None)
            if index is None:
                connection.close()
                return
            found[index] = task(connection, index)

    threads = [threading.Thread(target=go) for _ in range(min(in_flight, count))]
    cpu, begun = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run(
        seconds=time.perf_counter() - begun,
        client_cpu=time.process_time() - cpu,
        latencies=[seconds for seconds, _ in found],
        failed=sum(not well for _, well in found),
    )


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the server of `url`."""
    address = urlsplit(url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=_PATIENCE_S)


def _ask(connection: http.client.HTTPConnection, url: str, body: bytes) -> bytes:
    """The body of a good answer, nothing for another one."""
    headers = {"Content-Type": "application/json", "Accept": "image/png"}
    connection.request("POST", urlsplit(url).path, body, headers)
    answer = connection.getresponse()
    said = answer.read()
    return said if answer.status == http.client.OK else b""
