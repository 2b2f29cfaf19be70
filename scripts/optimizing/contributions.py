"""Run by skipping.py in a process of its own: what each attention block adds, by timestep."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diffusion_core.model_config import HandlerSettings
from diffusion_engine.loading import choose_device, load_pipeline
from diffusion_engine.recipes.skipping import Clock, attention_blocks


def main() -> None:
    """Reads an order from stdin, writes contributions as the last line of stdout."""
    order = json.load(sys.stdin)
    settings = HandlerSettings.model_validate_json(json.dumps(order["handler"]))
    print(json.dumps(contributions(Path(order["folder"]), settings, order["prompts"])))


def contributions(
    folder: Path, handler: HandlerSettings, prompts: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """(timestep, ‖what the block adds‖ ÷ ‖what it is given‖) by block: means over the prompts.

    They are drawn as requests that name only a prompt are.
    """
    pipeline = load_pipeline(folder, handler, choose_device(handler.device))
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        return {}
    clock = Clock()
    unet.register_forward_pre_hook(clock.read, with_kwargs=True)
    for name, block in attention_blocks(unet).items():
        block.register_forward_hook(_note(found[name], clock))
    defaults = handler.defaults
    with torch.no_grad():
        for seed, prompt in enumerate(prompts):
            pipeline(
                prompt,
                negative_prompt=defaults.negative_prompt,
                num_inference_steps=defaults.num_inference_steps,
                guidance_scale=defaults.guidance_scale,
                width=defaults.width,
                height=defaults.height,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            )
    return {
        name: [(time, sum(parts) / len(parts)) for time, parts in sorted(by_time.items())]
        for name, by_time in found.items()
    }


def _note(by_time: dict[float, list[float]], clock: Clock) -> Any:
    def hook(_block: torch.nn.Module, args: Any, output: Any) -> None:
        given = args[0]
        added = (output[0] - given).flatten(1).norm(dim=1) / given.flatten(1).norm(dim=1)
        for time, part in zip(clock.times(len(given)), added.tolist(), strict=True):
            by_time[time].append(part)

    return hook


if __name__ == "__main__":
    main()
