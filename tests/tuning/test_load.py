"""The load client against a server of a few lines: everything is asked once, when it is due."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from diffusion_core.errors import ConfigError
from diffusion_core.profile import Shape
from diffusion_costs.tuning.simulation import Asked
from tuning.load import Load, require_all

SHAPE = Shape(64, 64)


class Handler(BaseHTTPRequestHandler):
    """Answers requests of up to nine steps, and refuses the others."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, dict]]

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, fields))
        well = fields["num_inference_steps"] < 10
        content = b"\x89PNG" if well else b"too many steps"
        self.send_response(200 if well else 422)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def asked() -> list[tuple[str, dict]]:
    return []


@pytest.fixture
def url(asked: list[tuple[str, dict]]) -> Iterator[str]:
    class Noting(Handler):
        pass

    Noting.asked = asked
    server = ThreadingHTTPServer(("127.0.0.1", 0), Noting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def requests(*times: float, steps: int = 4) -> list[Asked]:
    return [Asked(time, steps, SHAPE, 2) for time in times]


def test_requests_are_sent_when_they_are_due(url: str, asked: list[tuple[str, dict]]) -> None:
    begun = time.perf_counter()
    seen = Load([f"{url}/predictions/m"]).open(requests(5.0, 5.1, 5.2))
    assert time.perf_counter() - begun >= 0.2
    assert (len(seen.latencies), seen.failed) == (3, 0)
    assert {fields["num_inference_steps"] for _, fields in asked} == {4}
    # Prompts and seeds of their own: no cache has seen them.
    assert len({fields["prompt"] for _, fields in asked}) == 3


def test_clients_share_the_registrations(url: str, asked: list[tuple[str, dict]]) -> None:
    told = []
    load = Load([f"{url}/predictions/a", f"{url}/predictions/b"], lambda: told.append(1))
    seen = load.closed(requests(*[0.0] * 20), 4)
    assert len(seen.latencies) == len(asked) == len(told) == 20
    assert {path for path, _ in asked} <= {"/predictions/a", "/predictions/b"}


def test_known_prompts_are_asked_again(url: str, asked: list[tuple[str, dict]]) -> None:
    known = [Asked(0.0, 4, SHAPE, 2, encode=False)] * 3
    Load([f"{url}/predictions/m"]).closed(known, 1)
    assert len({fields["prompt"] for _, fields in asked}) == 1


def test_failures_are_told_with_the_servers_words(url: str) -> None:
    seen = Load([f"{url}/predictions/m"]).closed(requests(0.0, 0.0, steps=12), 1)
    with pytest.raises(ConfigError, match=r"2 of 2 requests got no picture.*422 too many steps"):
        require_all(seen)
