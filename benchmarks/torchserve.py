"""A real TorchServe with archives: the project's own, the guides' handler, an empty one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.closing import Closing
from benchmarks.models import ROOT, WORK, Model
from benchmarks.workload import asked
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Running, Server

PEERS = Path(__file__).parent / "peers"
_PROFILE = ROOT / "config" / "config.properties"
_RESPONSE_TIMEOUT = 900


class TorchServe(Closing):
    """TorchServe in the work folder, stopped when the block ends."""

    def __init__(self) -> None:
        self.store = WORK / "store"
        self._server = Server(WORK / "torchserve")

    def __enter__(self) -> TorchServe:
        self.store.mkdir(parents=True, exist_ok=True)
        self._server.stop()
        self._server.start(_PROFILE, self.store, port=ports())
        self._fleet = Fleet(self._server)
        return self

    def close(self) -> None:
        """Stops the server."""
        self._server.stop()

    def register(self, archive: str) -> str:
        """Loads an archive of the store; returns the address of its predictions."""
        self._fleet.register(archive, archive)
        return f"{self._server.require().inference}/predictions/{archive}"

    def unregister(self, archive: str) -> None:
        """Ends an archive's workers."""
        self._fleet.unregister(archive, force=True)

    def pids(self, archive: str) -> list[int]:
        """The server's process and the archive's workers."""
        workers = self._fleet.management.version(archive).workers
        return [self._server.require().pid, *(worker.pid for worker in workers)]

    def running(self) -> Running:
        """Its addresses."""
        return self._server.require()

    def describe(self, archive: str) -> dict[str, Any]:
        """What the archive's handler says of itself."""
        return self._fleet.management.describe(archive)


def ports() -> int:
    """The first of five free ports, away from where other servers of this machine look first."""
    return free_base(20_000 + os.getpid() % 1000 * 30)


def build(
    store: Path,
    model: Model,
    *,
    mode: str,
    rows: int,
    batch: int,
    threads: int,
    workers: int = 1,
) -> str:
    """An archive of `model` from the project's own tool, links for its weights; returns its name.

    Args:
        rows: the most rows of a denoiser call.
        batch: the most requests in TorchServe's batch.
        threads: torch's, in each worker.
    """
    name = f"{model.name}-{mode}-{workers}"
    config = model_config(model, rows=rows, batch=batch, threads=threads)
    config |= {"minWorkers": workers, "maxWorkers": workers}
    config["continuousBatching"] = mode == "continuous"
    path = store / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    options = ["--format", "no-archive", "--model-store", str(store)]
    write_with("archive.py", "build", "--name", name, *options, model=model, config=path)
    return name


def model_config(model: Model, *, rows: int, batch: int, threads: int) -> dict[str, Any]:
    """The model config that the project serves `model` with; one worker."""
    return {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": batch,
        "maxBatchDelay": 20,
        "responseTimeout": _RESPONSE_TIMEOUT,
        "jobQueueSize": 1000,
        "handler": {
            "device": "cpu",
            "dtype": model.dtype,
            "threads": threads,
            "limits": {"min_size": 16, "max_size": 512, "max_timeout_s": _RESPONSE_TIMEOUT - 1},
            "defaults": {"width": model.size, "height": model.size},
            "engine": {"max_rows": rows},
        },
    }


def write_with(script: str, *arguments: str, model: Model, config: Path) -> None:
    """Has a script of the project write what a server serves, in place of what is there."""
    command = [sys.executable, f"scripts/{script}", *arguments, "--force"]
    command += ["--model", str(model.folder), "--config", str(config)]
    done = subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def build_guides(store: Path, model: Model, threads: int) -> str:
    """The guides' handler over the same pipeline, at TorchServe's default batch of one."""
    settings = {
        "folder": str(model.folder),
        "dtype": model.dtype,
        "threads": threads,
        "warmup": asked(model, [2])[0].fields(),
    }
    files = [PEERS / "guides_handler.py", PEERS / "drawing.py"]
    return _plain(store, f"{model.name}-guides", files, {"drawing": settings})


def build_empty(store: Path, answer_bytes: int) -> str:
    """A handler that does nothing and answers with so many bytes."""
    return _plain(store, "empty", [PEERS / "empty_handler.py"], {"answer": {"bytes": answer_bytes}})


def _plain(store: Path, name: str, files: Sequence[Path], settings: dict[str, Any]) -> str:
    """A folder that TorchServe serves as it is: a handler, the files beside it, a config."""
    folder = store / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "MAR-INF").mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": name,
            "modelVersion": "1.0",
            "handler": files[0].name,
            "configFile": "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    config = {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "responseTimeout": _RESPONSE_TIMEOUT,
        "jobQueueSize": 1000,
        **settings,
    }
    (folder / "model-config.yaml").write_text(yaml.safe_dump(config))
    return name
