"""A real Triton with the project's model repository."""

from __future__ import annotations

import shutil

import yaml

from benchmarks.closing import Closing
from benchmarks.models import ROOT, WORK, Model
from benchmarks.torchserve import model_config, ports, write_with
from triton_serving.environment import Environment
from triton_serving.server import TritonServer


class TritonServed(Closing):
    """One model on a Triton of its own, stopped when the block ends.

    Args:
        rows: the most rows of a denoiser call.
        batch: the most requests in Triton's batch.
        threads: torch's.
    """

    def __init__(self, model: Model, *, rows: int, batch: int, threads: int) -> None:
        self._model = model
        self._config = model_config(model, rows=rows, batch=batch, threads=threads)
        self._server = TritonServer(WORK / "triton-run")

    def __enter__(self) -> TritonServed:
        environment = Environment(ROOT / "run" / "triton-venv")
        environment.install()
        name, repository = self._model.name, WORK / "model-repository"
        shutil.rmtree(repository, ignore_errors=True)
        repository.mkdir(parents=True)
        config = WORK / f"{name}-triton.yaml"
        config.write_text(yaml.safe_dump(self._config))
        options = ["--name", name, "--repository", str(repository)]
        write_with("triton_repo.py", *options, model=self._model, config=config)
        # Of the forms of a model the one that answers once, and the weights in memory once.
        for path in repository.iterdir():
            if path.name != name:
                shutil.rmtree(path)
        self._server.stop()
        running = self._server.start(environment, repository, ports())
        self.url = f"{running.http}/v2/models/{name}/generate"
        return self

    def close(self) -> None:
        """Stops the server."""
        self._server.stop()
