"""Structural pruning of the demonstration pipeline's UNet: channels go, layers get narrower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_engine.recipes.channels import WEIGHTS, load_pruned
from emoji_data import load_emoji
from emoji_training.losses import denoising_loss
from emoji_training.networks import Denoiser
from emoji_training.stage import Budget, Stage
from optimizing.folders import Tell
from train_demo import encode, to_tensor, tokenize

STEPS = 200
"""Optimizer steps of a pruned UNet's training, which had some 3,700 at first."""

_BATCH = 32
_PEAK = 1e-3


def cut_channels(folder: Path, part: float) -> None:
    """Takes `part` of the channels out of the UNet in `folder`, those of the least weight.

    torch-pruning finds which layers must lose the same channels (Fang et al., 2023). Widths stay
    multiples of what a norm's groups and an attention's heads divide.
    """
    import torch_pruning as tp

    home = folder / "unet"
    unet = UNet2DConditionModel.from_pretrained(home, local_files_only=True).float().eval()
    config = unet.config
    example = {
        "sample": torch.zeros(1, config.in_channels, config.sample_size, config.sample_size),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, 32, config.cross_attention_dim),
    }
    for parameter in unet.parameters():
        parameter.requires_grad_(True)
    # It follows gradients to see which layers belong together, also where they are off by default.
    with torch.enable_grad():
        pruner = tp.pruner.BasePruner(
            unet,
            example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=part,
            ignored_layers=[unet.conv_out, *_projections(unet)],
            forward_fn=lambda model, inputs: model(**inputs).sample,
        )
        pruner.step()
    _save(unet, home)


def tune_again(folder: Path, tell: Tell, steps: int = STEPS) -> None:
    """Trains the UNet in `folder` for some steps on the emoji; the text encoder stays."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, unet=load_pruned(folder / "unet", torch.float32), dtype=torch.float32
    )
    denoiser = Denoiser(pipeline.text_encoder.requires_grad_(False), pipeline.unet)
    denoiser.unet.requires_grad_(True)
    emoji = load_emoji()
    latents = encode(pipeline.vae, to_tensor(emoji)) * pipeline.vae.config.scaling_factor
    tokens = tokenize(pipeline.tokenizer, list(emoji.names))
    nothing = tokenize(pipeline.tokenizer, [""])
    checkpoint = folder.with_name(f"{folder.name}.training")
    stage = Stage(denoiser, checkpoint, peak=_PEAK)

    def loss(working: Denoiser) -> Tensor:
        tell(f"training again, step {stage.step} of {steps}")
        return denoising_loss(working, latents, tokens, nothing, _BATCH)

    trained = stage.run(loss, Budget(0.0, steps), seed=0)
    checkpoint.unlink(missing_ok=True)
    _save(trained.unet, folder / "unet")


def _projections(unet: nn.Module) -> list[nn.Module]:
    """Layers that make queries, keys and values: heads are left as wide as they are."""
    ends = ("to_q", "to_k", "to_v")
    return [layer for name, layer in unet.named_modules() if name.endswith(ends)]


def _save(unet: Any, home: Path) -> None:
    """The weights in float16, as the pipeline ships; the config keeps telling of the layers."""
    weights = {name: one.detach().half().contiguous() for name, one in unet.state_dict().items()}
    save_file(weights, home / WEIGHTS)
