"""The models that are measured, from small to large."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.pipelines import mid_flux, mid_size, stable_diffusion_15

ROOT = Path(__file__).parents[1]
NAMES = ("emoji", "mid", "flux-mid", "sd15")

WORK = ROOT / "run" / "bench"
"""Where pipelines, archives and servers of a run live; `make clean` removes it."""


@dataclass(frozen=True)
class Model:
    """A pipeline folder and how it is asked: square pictures of `size` pixels, guided."""

    name: str
    folder: Path
    size: int
    dtype: str = "float32"
    guidance: float = 5.0

    @property
    def weights(self) -> list[Path]:
        """The files that hold its weights."""
        return sorted(self.folder.rglob("*.safetensors"))


def find(name: str) -> Model:
    """A model by name, made in the work folder where it does not exist yet."""
    pipelines = WORK / "pipelines"
    pipelines.mkdir(parents=True, exist_ok=True)
    if name == "emoji":
        return _emoji(pipelines)
    if name == "mid":
        return Model(name, mid_size(pipelines / "mid"), size=128)
    if name == "flux-mid":
        return Model(name, mid_flux(pipelines / name), size=64, guidance=3.5)
    if name == "sd15":
        folder = stable_diffusion_15(pipelines / "sd15-bfloat16", torch.bfloat16)
        return Model(name, folder, size=256, dtype="bfloat16")
    raise ValueError(f"{name} is not one of {', '.join(NAMES)}")


def _emoji(pipelines: Path) -> Model:
    """The demonstration model; before it is trained, the pipeline of the tests in its place."""
    folder = ROOT / "models" / "emoji"
    if (folder / "model_index.json").is_file():
        return Model("emoji", folder, size=64)
    from tests.tiny import save_tiny_stable_diffusion

    tiny = pipelines / "tiny"
    if not (tiny / "model_index.json").is_file():
        save_tiny_stable_diffusion(tiny, limit=77)
    return Model("tiny", tiny, size=64)
