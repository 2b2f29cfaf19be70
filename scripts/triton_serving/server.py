"""The tritonserver process: started, found again, stopped."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import requests

from diffusion_core.identity import CONFIG_NAME, digest
from diffusion_core.model_config import read_model_config
from serving.errors import Trouble
from serving.ports import free_base, holder, is_taken
from triton_serving.environment import Environment

_HOST = "127.0.0.1"
# A worker ends every request it took before it goes; each has a time limit of its own.
_GRACE_S = 120
# Triton then waits for its clients to close their connections, idle ones too.
_CONNECTIONS_S = 5

_AT_WORK = ("READY", "LOADING", "UNLOADING")


@dataclass(frozen=True)
class RunningTriton:
    """What later commands have to know of a server that was started."""

    pid: int
    http: str
    grpc: str
    metrics: str


class TritonServer:
    """Triton with a folder of its own for its log and its state.

    Args:
        grace_s: how long a stop waits for requests that were taken.
    """

    def __init__(self, folder: Path, *, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self.folder = folder.resolve() / "triton"
        self.log = folder.resolve() / "logs" / "triton.log"
        self._state = self.folder / "server.json"
        # Servers that share /dev/shm must not share its names.
        self._prefix = f"diffusion_{digest(str(self.folder))[:12]}_"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Environment, repository: Path, port: int) -> RunningTriton:
        """Starts it with every model of the repository; returns when all are READY.

        Args:
            port: the first of three in a row: HTTP, gRPC, metrics.
        """
        for taken in filter(is_taken, range(port, port + 3)):
            raise Trouble(
                f"Port {taken} is taken by {holder(taken)}; choose three free ports in a row, for "
                f"example `make triton-up PORT={free_base()}`."
            )
        for place in (self.folder, self.log.parent):
            place.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                self._command(environment, repository.resolve(), port),
                # First on the path of its workers' imports.
                cwd=self.folder,
                env=environment.variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = RunningTriton(
            pid=self._process.pid,
            http=f"http://{_HOST}:{port}",
            grpc=f"{_HOST}:{port + 1}",
            metrics=f"http://{_HOST}:{port + 2}/metrics",
        )
        self._state.write_text(json.dumps(asdict(running)))
        self._wait_until_ready(running, _start_up_s(repository))
        return running

    def find(self) -> RunningTriton | None:
        """The server started from this folder, if it still runs."""
        try:
            running = RunningTriton(**json.loads(self._state.read_text()))
            process = psutil.Process(running.pid)
            # Its folder tells this server from another process that was given the same pid.
            ours = any(str(self.folder) in part for part in process.cmdline())
            return running if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, TypeError, psutil.Error):
            return None

    def stop(self) -> bool:
        """Ends it when the requests it has taken are answered; False if none ran."""
        running = self.find()
        if running is not None:
            server = psutil.Process(running.pid)
            workers = server.children(recursive=True)
            self._unload(running)
            server.terminate()
            psutil.wait_procs([server], timeout=2 * _CONNECTIONS_S)
            for process in (server, *workers):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs([server, *workers], timeout=_CONNECTIONS_S)
        if self._process is not None:
            self._process.wait()
            self._process = None
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):  # noqa: S108 (Triton's own place)
            left.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        return running is not None

    def _unload(self, running: RunningTriton) -> None:
        """Takes the models out of service, and waits for the requests that they have taken."""
        repository = f"{running.http}/v2/repository"
        end = time.monotonic() + self._grace_s
        with requests.Session() as session, contextlib.suppress(requests.RequestException):
            session.trust_env = False
            while time.monotonic() < end:
                models = session.post(f"{repository}/index", json={}, timeout=self._grace_s).json()
                states = [(one["name"], one.get("state")) for one in models]
                if not any(state in _AT_WORK for _, state in states):
                    return
                for name in {name for name, state in states if state == "READY"}:
                    session.post(f"{repository}/models/{name}/unload", timeout=self._grace_s)
                time.sleep(0.1)

    def _command(self, environment: Environment, repository: Path, port: int) -> list[str | Path]:
        backends = environment.backends(self.folder / "backends")
        return [
            environment.server,
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            "--load-model=*",
            # Triton otherwise imports each model once more, only to ask for its configuration.
            "--disable-auto-complete-config",
            f"--http-address={_HOST}",
            f"--grpc-address={_HOST}",
            f"--metrics-address={_HOST}",
            f"--http-port={port}",
            f"--grpc-port={port + 1}",
            f"--metrics-port={port + 2}",
            f"--exit-timeout-secs={_CONNECTIONS_S}",
            f"--backend-config=python,shm-region-prefix-name={self._prefix}",
        ]

    def _wait_until_ready(self, running: RunningTriton, patience: float) -> None:
        assert self._process is not None
        end = time.monotonic() + patience
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < end:
                if self._process.poll() is not None:
                    raise Trouble(f"Triton did not start: {self._last_words()}")
                with contextlib.suppress(requests.RequestException):
                    if session.get(f"{running.http}/v2/health/ready", timeout=5).ok:
                        return
                time.sleep(0.2)
        self.stop()
        raise Trouble(f"Triton is not ready after {patience:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("E") or "rror" in line]
        return f"{(said or lines or ['it said nothing'])[-1]} ({self.log})"


def _start_up_s(repository: Path) -> float:
    """How long the models may take to load and to measure, as their configs say, in a row."""
    configs = repository.glob(f"*/*/{CONFIG_NAME}")
    return 30.0 + sum(read_model_config(config).startup_timeout for config in configs)
