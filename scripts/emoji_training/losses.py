"""What each stage of training minimises."""

from __future__ import annotations

import torch
from diffusers.models import AutoencoderKL
from diffusers.schedulers import DDIMScheduler
from torch import Tensor, nn

from emoji_training.networks import Denoiser, Sketcher

PROMPT_DROPOUT = 0.1
TIMESTEPS = 1000
SCHEDULE = {
    "num_train_timesteps": TIMESTEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}


def vae_loss(vae: AutoencoderKL, pictures: Tensor, batch: int) -> Tensor:
    """L1 of pixels and of their differences along both axes, L2 of flat colour, a trace of KL."""
    target = pictures[torch.randint(len(pictures), (batch,))]
    flipped = torch.rand(batch) < 0.5
    target = torch.where(flipped[:, None, None, None], target.flip(-1), target)
    posterior = vae.encode(target.to(vae.dtype)).latent_dist
    drawn = vae.decode(posterior.sample()).sample.float()
    loss: Tensor = nn.functional.l1_loss(drawn, target)
    for axis in (-1, -2):
        loss = loss + nn.functional.l1_loss(drawn.diff(dim=axis), target.diff(dim=axis))
    # Without these hues come last: few emoji are green or purple, all have outlines.
    colour = nn.functional.avg_pool2d(drawn - target, 4)
    green = colour[:, 1] - (colour[:, 0] + colour[:, 2]) / 2
    loss = loss + 4 * colour.square().mean() + 16 * green.square().mean()
    kl: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
    return loss + 1e-4 * kl


def sketch_loss(sketcher: Sketcher, latents: Tensor, tokens: Tensor, batch: int) -> Tensor:
    """Squared error of the sketched latents."""
    chosen = torch.randint(len(latents), (batch,))
    loss: Tensor = nn.functional.mse_loss(sketcher(tokens[chosen]), latents[chosen])
    return loss


def denoising_loss(
    denoiser: Denoiser, latents: Tensor, tokens: Tensor, no_prompt: Tensor, batch: int
) -> Tensor:
    """Squared error of the predicted velocity (Salimans and Ho, 2022) at random timesteps."""
    chosen = torch.randint(len(latents), (batch,))
    # One timestep from each of `batch` slices: less variance than independent draws. The power
    # makes noisy ones more frequent, where the name decides what is to be seen.
    slices = (torch.arange(batch) + torch.rand(batch)) / batch
    timesteps = (slices**0.6 * TIMESTEPS).long()
    target, noise = latents[chosen], torch.randn(batch, *latents.shape[1:])
    scheduler = DDIMScheduler(**SCHEDULE)
    noisy = scheduler.add_noise(target, noise, timesteps)
    velocity = scheduler.get_velocity(target, noise, timesteps)
    prompts = torch.where(torch.rand(batch, 1) < PROMPT_DROPOUT, no_prompt, tokens[chosen])
    loss: Tensor = nn.functional.mse_loss(denoiser(noisy, timesteps, prompts), velocity)
    return loss
