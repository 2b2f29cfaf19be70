"""A stage for adapters: LoRA files of every layer that takes one, and diffusers' own pictures."""

from __future__ import annotations

import atexit
import functools
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rig import Asked, Rig, finish, images_of, rig
from transformer_rig import stage

from archiving.lora_worker import read_lora, without_weights
from diffusion_engine.call import Job
from diffusion_engine.engine import StepEngine
from loras import ADAPTERS, save_lora

Weights = Mapping[str, float] | None


class AdapterStage:
    """A rig whose engines have every adapter of `ADAPTERS` that its pipeline takes."""

    def __init__(self, stage: Rig) -> None:
        self.rig = stage
        own = stage.bare["text-to-image"]
        held = tempfile.TemporaryDirectory(prefix="adapters-")
        atexit.register(held.cleanup)
        self.folder = Path(held.name)
        self.files = {
            name: save_lora(own, name, self.folder / f"{name}.safetensors")
            for name in ADAPTERS
            if _has_layers(own, name)
        }
        own.save_pretrained(self.folder / "pipeline", safe_serialization=True)
        bare = without_weights(self.folder / "pipeline")
        self.adapters = {name: read_lora(bare, file) for name, file in self.files.items()}
        self._solo: dict[Any, torch.Tensor] = {}

    def engine(
        self, cap: int = 64, names: Iterable[str] | None = None, **settings: Any
    ) -> StepEngine:
        engine = self.rig.engine(cap, **settings)
        for name in self.adapters if names is None else names:
            engine.served.adapters.add(name, self.adapters[name])
        return engine

    def job(self, asked: Asked, weights: Weights, **settings: Any) -> Job:
        return self.rig.job(asked, adapters=weights, **settings)

    def draw(self, engine: StepEngine, *wanted: tuple[Asked, Weights]) -> list[torch.Tensor]:
        """The pictures of requests submitted together."""
        tickets = [engine.submit(self.job(*one)) for one in wanted]
        finish(engine)
        return [images_of(ticket) for ticket in tickets]

    def solo(self, asked: Asked, weights: Weights) -> torch.Tensor:
        """What diffusers draws after its own `load_lora_weights` and `set_adapters`."""
        key = (asked, tuple(sorted((weights or {}).items())))
        if key not in self._solo:
            self._solo[key] = self._call_with(asked, weights)
        return self._solo[key]

    def _call_with(self, asked: Asked, weights: Weights) -> torch.Tensor:
        if not weights:
            return self.rig.solo(asked)
        pipeline = self.rig.bare[asked.task]
        try:
            with warnings.catch_warnings(action="ignore"):
                # PEFT warns of each adapter after the first.
                for name in weights:
                    file = self.files[name]
                    pipeline.load_lora_weights(
                        str(file.parent), weight_name=file.name, adapter_name=name
                    )
            pipeline.set_adapters(list(weights), adapter_weights=list(weights.values()))
            return self.rig.call_bare(asked)
        finally:
            pipeline.unload_lora_weights()


def _has_layers(pipeline: Any, name: str) -> bool:
    _, _, _, layers, text = ADAPTERS[name]
    loadable: Sequence[str] = type(pipeline)._lora_loadable_modules
    return bool(layers) or (text and any(part.startswith("text") for part in loadable))


@functools.cache
def adapter_stage(family: str, dtype: torch.dtype = torch.float32) -> AdapterStage:
    """The stage of "sd", "sdxl" or a transformer's family, shared by all tests."""
    return AdapterStage(
        rig(family, None, dtype) if family in ("sd", "sdxl") else stage(family, dtype)
    )
