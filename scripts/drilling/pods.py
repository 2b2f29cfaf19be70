"""A pod: a TorchServe and the gateway's worker that belongs to it, on a machine that may go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from drilling.gateway import GatewayProcess
from serving.cli import ROOT
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server

MODEL = "emoji"
GPU_POOL = "drill"

_PROFILE = ROOT / "config" / "config.properties"


class State(StrEnum):
    """Where a pod stands."""

    GONE = "gone"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Pod:
    """A place for a pod. Its addresses stay while pods come and go in it.

    Args:
        note: told of each change of state.

    Attributes:
        late: drains that took longer than the notice was.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        store: Path,
        settings: dict[str, Any],
        note: Callable[[int, State], None],
    ) -> None:
        self.number = number
        self.state = State.GONE
        self.late = 0
        self._store = store
        self._note = note
        self._folder = folder / f"pod-{number}"
        self._port = free_base(19000 + 10 * number)
        self._server = Server(self._folder / "run")
        own = {
            "role": "worker",
            "gpu_pool": GPU_POOL,
            "endpoints": [self.endpoint],
            "port": free_base(19100 + 10 * number, count=1),
        }
        self.worker = GatewayProcess(self._folder, {**settings, **own})
        self._life = 0

    @property
    def endpoint(self) -> dict[str, str]:
        """What gateways call its TorchServe."""
        base = "http://127.0.0.1:"
        inference, management = f"{base}{self._port}", f"{base}{self._port + 1}"
        return {"inference": inference, "management": management, "pool": "spot"}

    def start(self) -> None:
        """Brings a new pod up; returns when its model is READY, or when it was killed meanwhile."""
        self._life += 1
        life = self._life
        self._be(State.STARTING)
        try:
            self._server.start(_PROFILE, self._store, port=self._port)
            Fleet(self._server).register(MODEL, MODEL)
        except (Trouble, OSError):
            if life == self._life and self.state is State.STARTING:
                self.kill()
            return
        if life == self._life and self.state is State.STARTING:
            self.worker.start()
            self._be(State.READY)

    def notice(self, grace_s: float) -> None:
        """Half a minute's notice: the worker drains, then TorchServe ends, and what is left when
        the time is over is killed."""
        self._be(State.DRAINING)
        end = time.monotonic() + grace_s
        if not self.worker.end(grace_s):
            self.late += 1
        if self.state is State.DRAINING:
            self._server.stop(patience=max(0.0, end - time.monotonic()))
            self._be(State.GONE)

    def kill(self) -> None:
        """The machine is gone, without a word."""
        self._life += 1
        self.worker.kill()
        running = self._server.find()
        if running is not None:
            self._kill_tree(running.pid)
        self._server.sweep()
        self._be(State.GONE)

    def draw(self) -> str:
        """Where its TorchServe draws."""
        return f"{self._server.require().inference}/predictions/{MODEL}"

    def _kill_tree(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(pid)
            for process in (server, *server.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs([server], timeout=5)

    def _be(self, state: State) -> None:
        self.state = state
        self._note(self.number, state)
