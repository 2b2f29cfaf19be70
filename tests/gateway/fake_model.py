"""The model of a fake TorchServe: what it says of itself, and the pictures that it draws."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from diffusion_core.capabilities import Capabilities
from diffusion_core.limits import Defaults, Limits

IDENTITY = "runtime-of-the-fake"

CALL = frozenset({"negative_prompt", "guidance_scale"})


@dataclass
class FakeModel:
    """A registered model; `workers` of it are ready at once when it is scaled."""

    name: str
    batch_size: int = 2
    continuous: bool = True
    workers: int = 1
    archive: str = "fake.mar"
    version: str = "1.0"
    identity: str = IDENTITY
    checkpoints: bool = True
    memory_mb: int = 1000
    wake_s: float = 0.0
    loading: int = 0
    process: int = 1
    scaled: list[int] = field(default_factory=list)


def description(model: FakeModel) -> dict[str, Any]:
    capabilities = Capabilities(
        pipeline_class="StableDiffusionPipeline",
        call_parameters={"text-to-image": CALL, "image-to-image": CALL},
        default_width=64,
        default_height=64,
        size_multiple=8,
        schedulers=("DDIMScheduler", "EulerDiscreteScheduler"),
        default_scheduler="DDIMScheduler",
        streaming=model.continuous,
        previews=model.continuous,
        checkpoints=model.checkpoints,
    )
    return {
        "name": model.name,
        "identity": f"archive-{model.identity}",
        "runtime_identity": model.identity,
        "default_scheduler": "DDIMScheduler",
        "schedulers_without_checkpoints": ["EulerDiscreteScheduler"],
        "limits": Limits(min_size=16, max_size=256, max_timeout_s=20).model_dump(),
        "handler_defaults": Defaults().model_dump(),
        "capabilities": capabilities.model_dump(mode="json"),
        "engine": {"memory_mb": model.memory_mb, "profile": {}},
    }


def picture(seed: int) -> bytes:
    """A picture that tells the seed it was drawn from."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (seed % 256, seed // 256 % 256, 0)).save(file, "PNG")
    return file.getvalue()


def answer(fields: dict[str, Any], identity: str) -> dict[str, Any]:
    seeds = [fields["seed"] + index for index in range(fields.get("num_images", 1))]
    return {
        "images": [base64.b64encode(picture(seed)).decode() for seed in seeds],
        "seeds": seeds,
        "flagged": [False] * len(seeds),
        "output_format": "png",
        "scheduler": "DDIMScheduler",
        "prompt_truncated": False,
        "timings": {"denoise": 0.1},
        "device_seconds": 0.1,
        "identity": f"archive-{identity}",
    }
