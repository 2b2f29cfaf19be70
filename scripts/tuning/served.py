"""A real TorchServe that serves a model as a configuration says, for as long as it is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from archiving.build import build
from archiving.unpacked import linked_order
from archiving.watcher import Watcher
from diffusion_core.model_config import parse_model_config
from diffusion_costs.tuning.configurations import Configuration
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server

ROOT = Path(__file__).resolve().parents[2]
_SERVER_CONFIG = ROOT / "config" / "config.properties"
_NAME = "tuned"


class Tuner:
    """A TorchServe in run/tuning.

    Args:
        model: the pipeline folder.
        config: its model config, whose serving keys configurations replace.
        say: told in words what happens.
    """

    def __init__(self, model: str, config: Path | None, say: Callable[[str], None]) -> None:
        self._model = model
        self.document: dict[str, Any] = _read(config)
        self._say = say
        self._folder = ROOT / "run" / "tuning"
        self._store = self._folder / "store"
        self._server = Server(self._folder)

    @property
    def queue_size(self) -> int:
        """Requests that may wait, as the model's config has it."""
        return parse_model_config(self.document).job_queue_size

    def __enter__(self) -> Tuner:
        self._store.mkdir(parents=True, exist_ok=True)
        self._server.stop()
        self._say("starting TorchServe")
        self._server.start(_SERVER_CONFIG, self._store, port=free_base())
        self._fleet = Fleet(self._server)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        shutil.rmtree(self._store, ignore_errors=True)

    @contextmanager
    def serving(self, configuration: Configuration) -> Iterator[list[str]]:
        """The addresses of the model's predictions, served that way."""
        archive = self._build(configuration)
        self._say(f"loading: {configuration.name}")
        self._fleet.register(archive, _NAME)
        names = [_NAME]
        if configuration.mode == "continuous" and configuration.workers > 1:
            names = [one.name for one in self._fleet.scale(_NAME, configuration.workers)]
        inference = self._server.require().inference
        try:
            yield [f"{inference}/predictions/{name}" for name in names]
        finally:
            for name in names:
                self._fleet.unregister(name, force=True)

    def _build(self, configuration: Configuration) -> str:
        path = self._folder / f"{_NAME}.yaml"
        path.write_text(yaml.safe_dump(merged(self.document, configuration.keys())))
        order = linked_order(self._model, _NAME, path, self._store)
        return build(order, Watcher()).target.name


def merged(document: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """A model config's document with other keys, sections key by key."""
    found = dict(document)
    for name, value in keys.items():
        old = found.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        found[name] = merged(dict(old or {}), value) if both else value
    return found


def _read(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    return yaml.safe_load(config.read_text(encoding="utf-8")) or {}
