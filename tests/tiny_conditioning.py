"""Tiny ControlNets and IP-Adapters for the tiny UNets of `tiny`, with weights that count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WIDTH = 32
"""Of the image encoder's states and of its projection."""


def tiny_controlnet(unet: Any, seed: int = 5, **settings: Any) -> Any:
    """A ControlNetModel for a UNet; one that is fresh from its class would add nothing at all."""
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    config = {
        name: unet.config[name]
        for name in (
            "in_channels",
            "down_block_types",
            "block_out_channels",
            "layers_per_block",
            "norm_num_groups",
            "cross_attention_dim",
            "attention_head_dim",
            "use_linear_projection",
            "addition_embed_type",
            "addition_time_embed_dim",
            "transformer_layers_per_block",
            "projection_class_embeddings_input_dim",
        )
    }
    config |= {"in_channels": 4, "conditioning_embedding_out_channels": (8, 16)}
    model = ControlNetModel(**{**config, **settings}).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def tiny_image_encoder(seed: int = 6) -> Any:
    """A CLIPVisionModelWithProjection for pictures of 32×32."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=37,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        )
    ).eval()


def save_tiny_ip_adapter(folder: Path, unet: Any, seed: int = 7, *, plus: bool = False) -> Path:
    """`ip_adapter.safetensors` for a UNet, and the folder `image_encoder` beside it.

    `plus` makes the kind that reads the encoder's states instead of its projection.
    """
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tiny_image_encoder().save_pretrained(folder / "image_encoder")
    cross = unet.config["cross_attention_dim"]
    tensors = _resampler(cross, seed) if plus else _projection(cross, generator)
    number = 1
    for name in unet.attn_processors:
        if name.endswith("attn2.processor"):
            hidden = _hidden_size(name, unet)
            for part in ("to_k_ip", "to_v_ip"):
                weight = torch.randn(hidden, cross, generator=generator)
                tensors[f"ip_adapter.{number}.{part}.weight"] = weight / cross**0.5
            number += 2
    save_file(tensors, folder / "ip_adapter.safetensors")
    return folder


def _projection(cross: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    tokens = 4
    return {
        "image_proj.proj.weight": torch.randn(tokens * cross, WIDTH, generator=generator),
        "image_proj.proj.bias": torch.randn(tokens * cross, generator=generator),
        "image_proj.norm.weight": torch.ones(cross),
        "image_proj.norm.bias": torch.zeros(cross),
    }


def _resampler(cross: int, seed: int) -> dict[str, torch.Tensor]:
    """Weights of IP-Adapter Plus under the names that it was released with."""
    torch.manual_seed(seed)
    width, heads = 64, 64
    sizes: dict[str, tuple[int, ...]] = {
        "latents": (1, 4, width),
        "proj_in.weight": (width, WIDTH),
        "proj_in.bias": (width,),
        "proj_out.weight": (cross, width),
        "proj_out.bias": (cross,),
        "norm_out.weight": (cross,),
        "norm_out.bias": (cross,),
    }
    for layer in range(4):
        sizes |= {
            f"layers.{layer}.0.norm1.weight": (width,),
            f"layers.{layer}.0.norm1.bias": (width,),
            f"layers.{layer}.0.norm2.weight": (width,),
            f"layers.{layer}.0.norm2.bias": (width,),
            f"layers.{layer}.0.to_q.weight": (heads, width),
            f"layers.{layer}.0.to_kv.weight": (2 * heads, width),
            f"layers.{layer}.0.to_out.weight": (width, heads),
            f"layers.{layer}.1.0.weight": (width,),
            f"layers.{layer}.1.0.bias": (width,),
            f"layers.{layer}.1.1.weight": (4 * width, width),
            f"layers.{layer}.1.3.weight": (width, 4 * width),
        }
    return {f"image_proj.{name}": torch.randn(size) / 8 for name, size in sizes.items()}


def _hidden_size(name: str, unet: Any) -> int:
    channels = unet.config["block_out_channels"]
    if name.startswith("mid_block"):
        return int(channels[-1])
    block = int(name.split(".")[1])
    return int(channels[block] if name.startswith("down") else channels[-1 - block])
