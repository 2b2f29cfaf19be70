"""Pipelines to measure with: real configurations, random weights, made on this machine.

The time and memory that a pipeline takes depend on its shapes and not on what its weights say, so
nothing has to be downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_CLIP_TOKENS = 77
_CLIP_VOCABULARY = 49408


def stable_diffusion_15(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A pipeline folder with Stable Diffusion 1.5's configuration (1.07 billion parameters).

    The sizes are those of the published configs: the UNet and VAE of runwayml's v1-5 and OpenAI's
    CLIP ViT-L/14 text encoder; no safety checker. The tokenizer knows bytes alone, in a vocabulary
    of the published size. A folder that is there already is taken as it is.
    """
    if (folder / "model_index.json").is_file():
        return folder
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(_clip_vit_l_14()),
        tokenizer=_byte_tokenizer(folder.with_name(f"{folder.name}.tokenizer")),
        unet=UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=768,
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=8,
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=dtype).save_pretrained(folder, safe_serialization=True)
    return folder


def _clip_vit_l_14() -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=_CLIP_VOCABULARY,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=_CLIP_TOKENS,
        projection_dim=768,
        bos_token_id=_CLIP_VOCABULARY - 2,
        eos_token_id=_CLIP_VOCABULARY - 1,
        pad_token_id=_CLIP_VOCABULARY - 1,
    )


def _byte_tokenizer(scratch: Path) -> Any:
    """A CLIPTokenizer over bytes, its special tokens where CLIP has them."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [f"<|unused{n}|>" for n in range(_CLIP_VOCABULARY - 2 - len(words))]
    words += ["<|startoftext|>", "<|endoftext|>"]
    scratch.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = scratch / "vocab.json", scratch / "merges.txt"
    vocabulary.write_text(json.dumps({word: index for index, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=_CLIP_TOKENS)
    vocabulary.unlink()
    merges.unlink()
    scratch.rmdir()
    return tokenizer


def mid_size(folder: Path) -> Path:
    """A pipeline folder between a toy and Stable Diffusion: 40 million parameters in its UNet.

    It draws 128×128 pictures; a step with guidance is 7 billion multiplications and additions. A
    folder that is there already is taken as it is.
    """
    if (folder / "model_index.json").is_file():
        return folder
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    width = 256
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 128, 128),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            sample_size=128,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=_CLIP_VOCABULARY,
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=_CLIP_TOKENS,
                bos_token_id=_CLIP_VOCABULARY - 2,
                eos_token_id=_CLIP_VOCABULARY - 1,
                pad_token_id=_CLIP_VOCABULARY - 1,
            )
        ),
        tokenizer=_byte_tokenizer(folder.with_name(f"{folder.name}.tokenizer")),
        unet=UNet2DConditionModel(
            sample_size=16,
            cross_attention_dim=width,
            block_out_channels=(96, 192, 384),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=8,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def mid_flux(folder: Path) -> Path:
    """A pipeline folder with FLUX.1's parts and 9 million parameters in its transformer.

    It draws 64×64 pictures of 256 tokens, by 512 of text, with 4 blocks of two streams, 8 of one;
    FLUX.1 itself has 19 and 38. A folder that is there already is taken as it is.
    """
    if (folder / "model_index.json").is_file():
        return folder
    from tiny_pipelines import tiny

    transformer = {
        "num_layers": 4,
        "num_single_layers": 8,
        "num_attention_heads": 6,
        "attention_head_dim": 32,
        "axes_dims_rope": (8, 12, 12),
    }
    tiny("FluxPipeline", transformer=transformer).save_pretrained(folder, safe_serialization=True)
    return folder
