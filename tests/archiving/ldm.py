"""A tiny pipeline's weights under the names of a single-file checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# diffusers' names and the checkpoint's, for a UNet of one plain and one attention block.
_UNET = [
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^down_blocks\.0\.resnets\.0\.", "input_blocks.1.0."),
    (r"^down_blocks\.0\.downsamplers\.0\.conv\.", "input_blocks.2.0.op."),
    (r"^down_blocks\.1\.resnets\.0\.", "input_blocks.3.0."),
    (r"^down_blocks\.1\.attentions\.0\.", "input_blocks.3.1."),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
    (r"^up_blocks\.0\.resnets\.(\d)\.", r"output_blocks.\1.0."),
    (r"^up_blocks\.0\.attentions\.(\d)\.", r"output_blocks.\1.1."),
    (r"^up_blocks\.0\.upsamplers\.0\.", "output_blocks.1.2."),
    (r"^up_blocks\.1\.resnets\.0\.", "output_blocks.2.0."),
    (r"^up_blocks\.1\.resnets\.1\.", "output_blocks.3.0."),
    (r"(blocks?\.\d+\.\d\.|middle_block\.\d\.)norm1\.", r"\1in_layers.0."),
    (r"(blocks?\.[\d.]+)conv1\.", r"\1in_layers.2."),
    (r"(blocks?\.[\d.]+)time_emb_proj\.", r"\1emb_layers.1."),
    (r"(blocks?\.\d+\.\d\.|middle_block\.\d\.)norm2\.", r"\1out_layers.0."),
    (r"(blocks?\.[\d.]+)conv2\.", r"\1out_layers.3."),
    (r"(blocks?\.[\d.]+)conv_shortcut\.", r"\1skip_connection."),
]

_VAE = [
    (r"downsamplers\.0\.", "downsample."),
    (r"upsamplers\.0\.", "upsample."),
    (r"down_blocks\.(\d)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d)\.", r"down.\1."),
    (r"up_blocks\.0\.", "up.1."),
    (r"up_blocks\.1\.", "up.0."),
    (r"resnets\.(?=\d.*)(?<=up\.\d\.resnets\.)", "block."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"conv_shortcut\.", "nin_shortcut."),
    (r"conv_norm_out\.", "norm_out."),
    (r"group_norm\.", "norm."),
    (r"to_(q|k|v)\.", r"\1."),
    (r"to_out\.0\.", "proj_out."),
]


def save_single_file(pipeline: Path, target: Path) -> Path:
    """Writes the weights of the pipeline folder as one checkpoint; returns `target`."""
    from safetensors.torch import load_file, save_file

    unet = load_file(pipeline / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(pipeline / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(pipeline / "text_encoder" / "model.safetensors")
    tensors: dict[str, Any] = {}
    tensors |= {f"model.diffusion_model.{_renamed(k, _UNET)}": v for k, v in unet.items()}
    tensors |= {f"first_stage_model.{_renamed(k, _VAE)}": _convolved(k, v) for k, v in vae.items()}
    tensors |= {f"cond_stage_model.transformer.text_model.{k}": v for k, v in text.items()}
    save_file(tensors, target)
    return target


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _convolved(name: str, tensor: Any) -> Any:
    """The checkpoint's attention projects by convolutions of one pixel."""
    projects = re.search(r"attentions\.0\.to_.*weight", name)
    return tensor[..., None, None].contiguous() if projects else tensor
