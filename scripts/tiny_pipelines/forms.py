"""What single pipelines need their components to be, where a class's tiny form does not do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiny_pipelines.networks import LATENT_CHANNELS
from tiny_pipelines.texts import CLIP_WIDTH, WIDTH

_XL = {
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 6 * 8 + CLIP_WIDTH,
    "cross_attention_dim": 2 * CLIP_WIDTH,
}

# Stable Diffusion 3 inpaints with 16 channels or 33, and no others.
_16_CHANNELS = {
    "transformer": {"in_channels": 16, "out_channels": 16},
    "vae": {"latent_channels": 16},
}

# DeepFloyd IF draws pixels, and learns their variance.
_PIXELS = {"in_channels": 3, "out_channels": 6}

# An image and its mask come in beside the latents.
_INPAINTING_UNET = {"in_channels": 2 * LATENT_CHANNELS + 1}

# PixArt and Sana draw at sizes from a list of their own and resize what they drew: a VAE that makes
# little of a picture keeps that quick.
_SMALL_LATENTS = {
    "block_out_channels": (8, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}

_FORMS: dict[str, dict[str, Any]] = {
    "StableDiffusionInpaintPipeline": {"unet": _INPAINTING_UNET},
    "StableDiffusionXLInpaintPipeline": {"unet": {**_XL, **_INPAINTING_UNET}},
    "LatentConsistencyModelPipeline": {"unet": {"time_cond_proj_dim": 32}},
}


def form_of(name: str) -> Mapping[str, Any]:
    """Settings by component for the pipeline class `name`."""
    if name in _FORMS:
        return _FORMS[name]
    # Forms of one model: with perturbed attention, with a ControlNet.
    if name.startswith("StableDiffusionXL"):
        return {"unet": _XL, "controlnet": _XL}
    if name.startswith("StableDiffusion3"):
        return _16_CHANNELS
    if name.startswith(("PixArt", "HunyuanDiT")):
        return {"vae": _SMALL_LATENTS}
    return {"unet": {"cross_attention_dim": WIDTH, **_PIXELS}} if name.startswith("IF") else {}
