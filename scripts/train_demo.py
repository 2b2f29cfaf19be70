"""Train the demonstration pipeline: a small Stable Diffusion that draws emoji from their names.

    python scripts/train_demo.py --out models/emoji --work /tmp/emoji

The stages are tokenizer, autoencoder, text encoder, then text encoder and UNet together. A run
that was killed goes on from the last checkpoint in its work folder.
"""

import copy
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers.models import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from diffusers.pipelines.stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers import DPMSolverMultistepScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from emoji_data import EmojiSet, load_emoji
from emoji_training.losses import SCHEDULE, denoising_loss, sketch_loss, vae_loss
from emoji_training.networks import (
    Denoiser,
    Sketcher,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    build_vae,
)
from emoji_training.stage import Budget, Stage


def train_vae(checkpoint: Path, budget: Budget, batch: int, seed: int) -> AutoencoderKL:
    """Train the autoencoder on all emoji, symbols included, and set its scaling factor."""
    stage = Stage(build_vae(), checkpoint, peak=2e-3)
    pictures = to_tensor(load_emoji(max_words=None, symbols=True))
    vae = stage.run(lambda working: vae_loss(working, pictures, batch), budget, seed)
    vae.register_to_config(scaling_factor=round(1 / float(encode(vae, pictures).std()), 4))
    return vae


def train_text_encoder(
    checkpoint: Path, budget: Budget, seed: int, vae: AutoencoderKL, emoji: EmojiSet
) -> CLIPTextModel:
    """Teach the text encoder what the names look like, before there is a UNet to please."""
    tokenizer = build_tokenizer(emoji.names)
    stage = Stage(Sketcher(build_text_encoder(tokenizer)), checkpoint, peak=2e-3)
    latents = encode(vae, to_tensor(emoji)) * vae.config.scaling_factor
    tokens = tokenize(tokenizer, list(emoji.names))
    trained = stage.run(lambda working: sketch_loss(working, latents, tokens, 128), budget, seed)
    return trained.text_encoder


def train_denoiser(
    checkpoint: Path,
    budget: Budget,
    batch: int,
    seed: int,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    emoji: EmojiSet,
) -> Denoiser:
    """Train the text encoder and the UNet together; returns both, averaged."""
    tokenizer = build_tokenizer(emoji.names)
    denoiser = Denoiser(copy.deepcopy(text_encoder).requires_grad_(True), build_unet())
    # Its plain matrix products are faster to differentiate on a CPU than the fused attention.
    denoiser.unet.set_attn_processor(AttnProcessor())
    stage = Stage(denoiser, checkpoint, peak=1e-3)
    latents = encode(vae, to_tensor(emoji)) * vae.config.scaling_factor
    tokens = tokenize(tokenizer, list(emoji.names))
    no_prompt = tokenize(tokenizer, [""])
    return stage.run(
        lambda working: denoising_loss(working, latents, tokens, no_prompt, batch), budget, seed
    )


def to_tensor(emoji: EmojiSet) -> Tensor:
    """The pictures as the autoencoder reads them: float [n, 3, 64, 64] in -1..1."""
    return torch.from_numpy(emoji.pictures).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Token ids [n, 32], padded as the pipeline pads them."""
    padded = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    token_ids: Tensor = padded.input_ids
    return token_ids


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Unscaled latents [n, 4, 16, 16], the means of the autoencoder's posterior."""
    batches = torch.split(pictures, 64)
    return torch.cat([vae.encode(batch).latent_dist.mode() for batch in batches])


def save_pipeline(out: Path, emoji: EmojiSet, vae: AutoencoderKL, denoiser: Denoiser) -> None:
    """Write the pipeline folder, weights in float16."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=build_tokenizer(emoji.names),
        unet=denoiser.unet,
        scheduler=DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16).save_pretrained(out)


def train(
    out: Annotated[Path, typer.Option(help="Folder to write the pipeline to.")],
    work: Annotated[Path, typer.Option(help="Folder for checkpoints; a rerun goes on from them.")],
    vae_minutes: Annotated[float, typer.Option(min=0)] = 13,
    vae_steps: Annotated[int | None, typer.Option(min=0, help="Instead of the minutes.")] = None,
    vae_batch: Annotated[int, typer.Option(min=1)] = 16,
    sketch_minutes: Annotated[float, typer.Option(min=0, help="Text encoder alone.")] = 4,
    sketch_steps: Annotated[int | None, typer.Option(min=0)] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Text encoder and UNet.")] = 65,
    steps: Annotated[int | None, typer.Option(min=0, help="Instead of the minutes.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 32,
    seed: int = 0,
) -> None:
    """Train the emoji pipeline from nothing and write it as a diffusers folder."""
    try:
        emoji = load_emoji()
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    vae = train_vae(work / "vae.pt", Budget(vae_minutes, vae_steps), vae_batch, seed)
    text_encoder = train_text_encoder(
        work / "sketch.pt", Budget(sketch_minutes, sketch_steps), seed, vae, emoji
    )
    denoiser = train_denoiser(
        work / "denoiser.pt", Budget(minutes, steps), batch, seed, vae, text_encoder, emoji
    )
    save_pipeline(out, emoji, vae, denoiser)


if __name__ == "__main__":
    typer.run(train)
