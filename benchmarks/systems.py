"""The systems that are measured against each other. Each draws the same requests to PNG files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from benchmarks.apart import Apart
from benchmarks.client import Run, ask_all, ask_triton
from benchmarks.closing import Closing
from benchmarks.models import Model
from benchmarks.torchserve import PEERS, TorchServe, build, build_guides, ports
from benchmarks.triton import TritonServed
from benchmarks.workload import Asked, asked

BARE = "bare pipeline"
CONTINUOUS = "this project, continuous"
CLASSIC = "this project, classic"
TWO_WORKERS = "this project, classic, two workers"
GUIDES = "guides' TorchServe handler"
SAME_STEPS = "guides' dynamic batcher"
PAD = "pad to longest"
TRITON = "this project, Triton"
LITSERVE = "LitServe, batched pipeline"

_GUIDES_BATCH, _GUIDES_WAIT = 4, 0.5
_SHORT_WAIT = 0.02


class System(Protocol):
    """Something that draws a list of requests."""

    def run(self, requests: Sequence[Asked]) -> Run:
        """Draws them all and tells what it took."""
        ...


@dataclass
class Served:
    """A system behind HTTP on loopback."""

    url: str
    in_flight: int
    ask: Callable[[str, Sequence[Asked], int], Run] = ask_all

    def run(self, requests: Sequence[Asked]) -> Run:
        """Draws them all and tells what it took."""
        return self.ask(self.url, requests, self.in_flight)


class Systems(Closing):
    """Systems over one model, by name, started as they are asked for and ended together.

    Args:
        threads: torch's, in every system, and in the workers of one together.
        batch: requests in a batch, for whoever batches whole pictures.
        rows: the most rows of a denoiser call, for the step engine.
        in_flight: connections of the client.
    """

    def __init__(
        self, model: Model, *, threads: int, batch: int, rows: int, in_flight: int
    ) -> None:
        self.model = model
        self._threads = threads
        self._batch, self._rows, self._in_flight = batch, rows, in_flight
        self._stack = ExitStack()
        self._torchserve: TorchServe | None = None

    def close(self) -> None:
        """Ends every system that was started."""
        self._stack.close()

    def start(self, name: str) -> System:
        """The system called `name`, having drawn once."""
        system = self._bare() if name == BARE else self._served(name)
        warm = system.run(asked(self.model, [2] * self._batch))
        if warm.failed:
            raise RuntimeError(f"{name} does not draw")
        return system

    def _bare(self) -> Apart:
        return self._stack.enter_context(Apart(self.model, self._threads, self._batch))

    def _served(self, name: str) -> Served:
        if name != TRITON:
            return Served(self._url(name), self._in_flight)
        triton = TritonServed(
            self.model, rows=self._rows, batch=self._in_flight, threads=self._threads
        )
        return Served(self._stack.enter_context(triton).url, self._in_flight, ask_triton)

    def _url(self, name: str) -> str:
        if name == SAME_STEPS:
            rule = ["--rule", "same-steps", "--wait", str(_GUIDES_WAIT)]
            return self._program("batching_server.py", *rule, "--most", str(_GUIDES_BATCH))
        if name == PAD:
            rule = ["--rule", "pad", "--wait", str(_SHORT_WAIT)]
            return self._program("batching_server.py", *rule, "--most", str(self._batch))
        if name == LITSERVE:
            rule = ["--wait", str(_SHORT_WAIT), "--most", str(self._batch)]
            return self._program("litserve_server.py", *rule)
        server = self._server()
        return server.register(self._archive(name, server))

    def _archive(self, name: str, server: TorchServe) -> str:
        if name == GUIDES:
            return build_guides(server.store, self.model, self._threads)
        workers = 2 if name == TWO_WORKERS else 1
        return build(
            server.store,
            self.model,
            mode="continuous" if name == CONTINUOUS else "classic",
            rows=self._rows,
            batch=max(1, self._in_flight // workers),
            threads=max(1, self._threads // workers),
            workers=workers,
        )

    def _server(self) -> TorchServe:
        if self._torchserve is None:
            self._torchserve = self._stack.enter_context(TorchServe())
        return self._torchserve

    def _program(self, file: str, *options: str) -> str:
        port = ports()
        command = [sys.executable, str(PEERS / file), "--port", str(port), *options]
        command += ["--folder", str(self.model.folder), "--dtype", self.model.dtype]
        command += ["--threads", str(self._threads)]
        process = subprocess.Popen(command, start_new_session=True)  # noqa: S603
        self._stack.callback(_end, process)
        _wait_until_up(f"http://127.0.0.1:{port}/", process)
        return f"http://127.0.0.1:{port}/draw"


def _wait_until_up(url: str, process: subprocess.Popen[bytes], patience: float = 300.0) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5)  # noqa: S310
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not answer")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and the processes it started, which share its session."""
    os.killpg(process.pid, 15)
    process.wait()
