"""What probes say of a TorchServe in each of its states."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from containers.probe import main


class TorchServe:
    """Answers as a management API does, from `workers`: statuses by registration."""

    def __init__(self) -> None:
        self.workers: dict[str, list[str]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.removeprefix("/models/")
                states = outer.workers.get(name)
                document: Any = {"code": 404} if states is None else [
                    {"workers": [{"status": status} for status in states]}
                ]  # fmt: skip
                self.send_response(404 if states is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def torchserve() -> Iterator[TorchServe]:
    made = TorchServe()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("workers", "started", "ready"),
    [
        ({}, 1, 1),
        ({"m": ["WORKER_STARTED"]}, 1, 1),
        ({"m": ["READY"]}, 1, 0),
        ({"m": ["READY"], "m-2": ["WORKER_STARTED"]}, 1, 0),
        ({"m": ["READY"], "m-2": ["READY"]}, 0, 0),
        ({"m": ["UNLOADING"], "m-2": ["READY"]}, 1, 0),
        ({"m": [], "m-2": []}, 0, 0),
    ],
)
def test_models(
    torchserve: TorchServe,
    tmp_path: Path,
    workers: dict[str, list[str]],
    started: int,
    ready: int,
) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps({"m": {"registrations": 2}}))
    torchserve.workers = workers
    for question, expected in (("started", started), ("ready", ready)):
        asked = ["--management", torchserve.address, question, str(models)]
        assert main(asked) == expected, question


def test_a_frontend_that_answers_anything_is_alive(
    torchserve: TorchServe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--inference", torchserve.address, "alive"]) == 0
    assert main(["--inference", "http://127.0.0.1:9", "alive"]) == 1
    assert "does not answer" in capsys.readouterr().out


def test_waiting_for_the_gateways_worker() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert main(["--gateway", address, "drained", "--within", "0.2"]) == 1
        ends = threading.Timer(0.7, listening.close)
        ends.start()
        began = time.monotonic()
        assert main(["--gateway", address, "drained", "--within", "20"]) == 0
        assert time.monotonic() - began < 10
        ends.join()
