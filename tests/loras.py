"""LoRA files of tiny pipelines: random factors for layers of each kind that released ones have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

# Linear layers and, of UNets, convolutions: one of each kind that released LoRAs change.
_UNET = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "conv2", "conv_shortcut")
_UNET_MORE = ("conv_in", "conv_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2", "linear_1")
_TRANSFORMER = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "net.2", "proj_out", "linear")
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

# name: rank, alpha, seed, layers of the denoiser, and whether text encoders have it too.
ADAPTERS: dict[str, tuple[int, float, int, tuple[str, ...], bool]] = {
    "attention": (4, 8.0, 1, ("to_q", "to_k", "to_v", "to_out.0"), False),
    "everywhere": (3, 3.0, 2, _UNET + _UNET_MORE + _TRANSFORMER, True),
    "wide": (11, 4.0, 3, ("to_q", "conv1", "net.2", "proj_out"), False),
    "words": (5, 10.0, 4, (), True),
}

_SCALE = 0.35
"""How large random factors are: pictures change by far more than the bound and stay finite."""


def lora_state(pipeline: Any, name: str) -> tuple[dict[str, torch.Tensor], float]:
    """Random low-rank weights in diffusers' own names, and their alpha."""
    rank, alpha, seed, layers, text = ADAPTERS[name]
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for component in type(pipeline)._lora_loadable_modules:
        model = pipeline.components.get(component)
        if component.startswith("text_encoder") and not text:
            continue
        ends = _TEXT if component.startswith("text_encoder") else layers
        for place, module in model.named_modules():
            if _taken(module) and any(f".{place}".endswith(f".{end}") for end in ends):
                down, up = _factors(module, rank, generator)
                state[f"{component}.{place}.lora_A.weight"] = down
                state[f"{component}.{place}.lora_B.weight"] = up
    assert state, name
    return state, alpha


def save_lora(pipeline: Any, name: str, file: Path) -> Path:
    """The adapter as a file that diffusers wrote: alpha in the metadata."""
    state, alpha = lora_state(pipeline, name)
    rank = ADAPTERS[name][0]
    components = {key.partition(".")[0] for key in state}
    about: dict[str, Any] = {}
    for component in components:
        prefix = f"{component}."
        places = {
            key.removeprefix(prefix).removesuffix(".lora_A.weight")
            for key in state
            if key.startswith(prefix) and key.endswith(".lora_A.weight")
        }
        one = {"r": rank, "lora_alpha": alpha, "target_modules": sorted(places)}
        about |= {f"{prefix}{word}": value for word, value in one.items()}
    save_file(state, file, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(about)})
    return file


def _taken(module: torch.nn.Module) -> bool:
    return isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))


def _factors(module: Any, rank: int, generator: torch.Generator) -> tuple[Any, Any]:
    if isinstance(module, torch.nn.Linear):
        shapes: tuple[Any, Any] = ((rank, module.in_features), (module.out_features, rank))
    else:
        shapes = (
            (rank, module.in_channels, *module.kernel_size),
            (module.out_channels, rank, 1, 1),
        )
    down, up = (torch.randn(shape, generator=generator) for shape in shapes)
    return down * _SCALE / down[0].numel() ** 0.5, up * _SCALE
