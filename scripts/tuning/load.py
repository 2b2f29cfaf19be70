"""Load on a running server: clients that wait for their answers, or requests that come when due."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from diffusion_core.errors import ConfigError
from diffusion_costs.tuning.simulation import Asked

_PATIENCE_S = 900.0

MOST_CONNECTIONS = 512
"""Requests in flight beyond which a due one waits for a connection; that wait counts."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a load run saw. Latencies in the order of the requests, from when each was due.

    Attributes:
        seconds: from the first request to the last answer.
        failures: what was answered instead of pictures.
    """

    latencies: Sequence[float]
    seconds: float
    failures: Sequence[str]

    @property
    def failed(self) -> int:
        """Answers that were no picture."""
        return len(self.failures)

    @property
    def throughput(self) -> float:
        """Pictures a second."""
        return (len(self.latencies) - self.failed) / self.seconds


class Load:
    """Requests to the registrations of one model.

    Args:
        urls: the addresses of their predictions; each request goes to the one with the fewest
            under way.
        progress: told after each answer.
    """

    def __init__(self, urls: Sequence[str], progress: Callable[[], None] = lambda: None) -> None:
        self._urls = list(urls)
        self._progress = progress
        self._lock = threading.Lock()
        self._under_way = [0] * len(urls)

    def open(self, asked: Sequence[Asked]) -> Seen:
        """Each request is sent when it is due, whoever still waits."""
        return self._run(asked, [one.time - asked[0].time for one in asked], MOST_CONNECTIONS)

    def closed(self, asked: Sequence[Asked], clients: int) -> Seen:
        """So many clients, each asking again once it is answered."""
        return self._run(asked, None, clients)

    def _run(self, asked: Sequence[Asked], due: Sequence[float] | None, connections: int) -> Seen:
        bodies = [_body(one, number) for number, one in enumerate(asked)]
        latencies = [0.0] * len(bodies)
        failures: list[str] = []
        left = iter(range(len(bodies)))
        begun = time.perf_counter()

        def go() -> None:
            open_to: dict[str, http.client.HTTPConnection] = {}
            while True:
                with self._lock:
                    index = next(left, None)
                if index is None:
                    break
                since = time.perf_counter() if due is None else begun + due[index]
                time.sleep(max(0.0, since - time.perf_counter()))
                failures.extend(self._ask(open_to, bodies[index]))
                latencies[index] = time.perf_counter() - since
                self._progress()
            for connection in open_to.values():
                connection.close()

        threads = [threading.Thread(target=go) for _ in range(min(connections, len(bodies)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Seen(latencies, time.perf_counter() - begun, failures)

    def _ask(self, open_to: dict[str, http.client.HTTPConnection], body: bytes) -> list[str]:
        """What went wrong, if anything did."""
        with self._lock:
            place = self._under_way.index(min(self._under_way))
            self._under_way[place] += 1
        url = self._urls[place]
        address = urlsplit(url)
        connection = open_to.get(url)
        if connection is None:
            connection = http.client.HTTPConnection(
                address.hostname or "", address.port, timeout=_PATIENCE_S
            )
            open_to[url] = connection
        headers = {"Content-Type": "application/json", "Accept": "image/png"}
        try:
            connection.request("POST", address.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == http.client.OK:
                return []
            return [f"{answer.status} {content[:300].decode(errors='replace')}"]
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return [type(error).__name__]
        finally:
            with self._lock:
                self._under_way[place] -= 1


def _body(asked: Asked, number: int) -> bytes:
    """A request of the model's own defaults; whether its prompt was seen before is as simulated."""
    fields = {
        "prompt": f"a red heart, number {number if asked.encode else 0}",
        "num_inference_steps": asked.steps,
        "width": asked.shape.width,
        "height": asked.shape.height,
        "seed": number,
    }
    return json.dumps(fields).encode()


def require_all(seen: Seen) -> Seen:
    """The same; `ConfigError` where requests failed, for then its times tell nothing."""
    if seen.failed:
        raise ConfigError(
            f"{seen.failed} of {len(seen.latencies)} requests got no picture, the first one:"
            f" {seen.failures[0]}; the server's logs are in run/tuning/logs"
        )
    return seen
