"""Train a small autoencoder for the demonstration's latents, as TAESD is for Stable Diffusion's.

    python scripts/train_tiny_vae.py --model models/emoji --out models/emoji-tiny-vae

Its decoder learns to draw what the pipeline's own VAE draws of the same latents, its encoder to
give the latents that the own one gives. `make optimize TINY_VAE=models/emoji-tiny-vae` measures it.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers.models import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from emoji_data import load_emoji
from emoji_training.stage import Budget, Stage
from train_demo import encode, to_tensor

_PEAK = 2e-3

_JITTER = 0.1
"""Noise on latents whose deviation is one: those that are drawn are not quite encoded ones."""


def build_tiny_vae(latent_channels: int) -> AutoencoderTiny:
    """An autoencoder with 4 × 4 pixels a latent; its latents are the scaled ones of others."""
    widths = (32, 32, 32)
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=latent_channels,
    )


def distilling_loss(
    tiny: AutoencoderTiny, pictures: Tensor, latents: Tensor, drawn: Tensor, batch: int
) -> Tensor:
    """L1 of the pixels drawn and of their differences along both axes, and L2 of the latents.

    Args:
        pictures: [n, 3, H, W] in -1..1.
        latents: the own VAE's of the pictures, scaled: [n, C, H/4, W/4].
        drawn: what the own VAE draws of the latents, [n, 3, H, W].
    """
    chosen = torch.randint(len(latents), (batch,))
    given, target = latents[chosen], drawn[chosen]
    given = given + _JITTER * torch.randn_like(given)
    decoded = tiny.decode(given.to(tiny.dtype)).sample.float()
    loss: Tensor = nn.functional.l1_loss(decoded, target)
    for axis in (-1, -2):
        loss = loss + nn.functional.l1_loss(decoded.diff(dim=axis), target.diff(dim=axis))
    encoded = tiny.encode(pictures[chosen].to(tiny.dtype)).latents.float()
    return loss + nn.functional.mse_loss(encoded, latents[chosen])


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """What a VAE draws of unscaled latents, [n, 3, H, W] in -1..1."""
    return torch.cat([vae.decode(batch).sample for batch in torch.split(latents, 64)])


def train(
    out: Annotated[Path, typer.Option(help="Folder to write the AutoencoderTiny to.")],
    model: Annotated[Path, typer.Option(help="The demonstration pipeline.")] = Path("models/emoji"),
    minutes: Annotated[float, typer.Option(min=0)] = 3,
    steps: Annotated[int | None, typer.Option(min=0, help="Instead of the minutes.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    seed: int = 0,
) -> None:
    """Train an AutoencoderTiny for the demonstration's latents."""
    try:
        pictures = to_tensor(load_emoji())
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    vae = AutoencoderKL.from_pretrained(model / "vae", local_files_only=True).float().eval()
    unscaled = encode(vae, pictures)
    drawn, latents = decode(vae, unscaled), unscaled * vae.config.scaling_factor
    torch.manual_seed(seed)
    checkpoint = out.with_name(f"{out.name}.training")
    stage = Stage(build_tiny_vae(vae.config.latent_channels), checkpoint, peak=_PEAK)
    trained = stage.run(
        lambda working: distilling_loss(working, pictures, latents, drawn, batch),
        Budget(minutes, steps),
        seed,
    )
    checkpoint.unlink()
    trained.to(torch.float16).save_pretrained(out)


if __name__ == "__main__":
    typer.run(train)
