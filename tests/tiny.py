"""Diffusers' own pipeline classes at tiny sizes, with random weights: what the tests serve."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch


def tiny_tokenizer(folder: Path | None = None, limit: int = 16) -> Any:
    """A CLIPTokenizer over bytes, with no merges: every text has tokens."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        (place / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
        (place / "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer(
            str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=limit
        )


def _text_config(limit: int, width: int, projection: int = 32) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=limit,
        projection_dim=projection,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        hidden_act="gelu",
    )


def _vae(seed: int = 1) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    ).eval()


def tiny_stable_diffusion(seed: int = 0, limit: int = 16, **unet: Any) -> Any:
    """A StableDiffusionPipeline that draws 32×32 pictures; `unet` overrides its UNet's settings."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    settings = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    }
    model = UNet2DConditionModel(**{**settings, **unet}).eval()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(limit, 32)).eval(),
        tokenizer=tiny_tokenizer(limit=limit),
        unet=model,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_stable_diffusion_xl(seed: int = 0, limit: int = 16, **unet: Any) -> Any:
    """A StableDiffusionXLPipeline that draws 32×32 pictures; `unet` overrides as above."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    settings = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": (1, 2),
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
    }
    model = UNet2DConditionModel(**{**settings, **unet}).eval()
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(limit, 32)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(limit, 32)).eval(),
        tokenizer=tiny_tokenizer(limit=limit),
        tokenizer_2=tiny_tokenizer(limit=limit),
        unet=model,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def save_tiny_stable_diffusion(folder: Path, **settings: Any) -> Path:
    """A pipeline folder of `tiny_stable_diffusion`, in safetensors; returns `folder`."""
    tiny_stable_diffusion(**settings).save_pretrained(folder, safe_serialization=True)
    return folder


def with_safety_checker(pipeline: Any, *, flags: bool) -> Any:
    """The Stable Diffusion pipeline with a tiny safety checker that flags all pictures or none."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    torch.manual_seed(3)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=vision, text_config={}, projection_dim=16)
    ).eval()
    # A cosine lies in [-1, 1]: beyond these thresholds lies every picture, or none.
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(checker, name).data.fill_(-2.0 if flags else 2.0)
    parts = {**pipeline.components, "safety_checker": checker}
    parts["feature_extractor"] = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return StableDiffusionPipeline(**parts, requires_safety_checker=True)
