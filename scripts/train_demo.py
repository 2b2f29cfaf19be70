"""Train the demonstration pipeline: a small Stable Diffusion that draws emoji from their names.

    python scripts/train_demo.py --out models/emoji --work /tmp/emoji

The stages are tokenizer, autoencoder, text encoder, then text encoder and UNet together. A run that was killed
goes on from the last checkpoint in its work folder.
"""

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import torch
import typer
from diffusers.models import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.pipelines.stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers import DDIMScheduler, DPMSolverMultistepScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from emoji_data import EmojiSet, load_emoji

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 2048
PROMPT_TOKENS = 32
TEXT_WIDTH = 160
PROMPT_DROPOUT = 0.1
CHECKPOINT_SECONDS = 60
TIMESTEPS = 1000
SCHEDULE = {
    "num_train_timesteps": TIMESTEPS,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
}
Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Budget:
    """What a stage may spend: optimizer steps where given, else minutes of training."""

    minutes: float
    steps: int | None = None

    def spent(self, step: int, seconds: float) -> float:
        """The part of the budget that is used up; 1 and above is all of it."""
        if self.steps is not None:
            return step / self.steps if self.steps else 1.0
        return seconds / (60 * self.minutes) if self.minutes else 1.0


class Stage(Generic[Trained]):
    """One module in training, with the running average of its weights and its checkpoint.

    The loss is computed by a bfloat16 copy, the optimizer keeps the weights in float32.
    """

    def __init__(self, module: Trained, checkpoint: Path, peak: float) -> None:
        self.module, self.checkpoint, self.peak = module, checkpoint, peak
        self.average = copy.deepcopy(module).eval().requires_grad_(False)
        self.working = copy.deepcopy(module).train().to(torch.bfloat16)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.step, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._load()

    def run(self, loss_of: Callable[[Trained], Tensor], budget: Budget, seed: int) -> Trained:
        """Minimise `loss_of(module)` until the budget is spent; returns the averaged module."""
        torch.manual_seed(seed + self.step)
        self._refresh()
        saved, first, loss_mean = time.monotonic(), self.step, 0.0
        with tqdm(total=100, desc=self.checkpoint.stem, unit="%") as bar:
            while (spent := budget.spent(self.step, self.seconds)) < 1:
                begun = time.monotonic()
                loss = self._update(loss_of, spent)
                loss_mean += (loss - loss_mean) * max(0.01, 1 / (self.step - first + 1))
                self.step += 1
                self.seconds += time.monotonic() - begun
                bar.n = min(100, round(100 * spent, 1))
                bar.set_postfix(step=self.step, loss=f"{loss_mean:.4f}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()
        return self.average

    def _update(self, loss_of: Callable[[Trained], Tensor], spent: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * learning_rate_factor(self.step, spent)
        loss = loss_of(self.working)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, worked in self._pairs():
            if worked.grad is not None:
                weight.grad, worked.grad = worked.grad.float(), None
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self._refresh()
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.module.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, 1 - decay)
        return loss.item()

    @torch.no_grad()
    def _refresh(self) -> None:
        for weight, worked in self._pairs():
            worked.copy_(weight)

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        return zip(self.module.parameters(), self.working.parameters(), strict=True)

    def _save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


class Denoiser(nn.Module):
    """The text encoder and the UNet, trained as one."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Predicted velocity [b, 4, 16, 16] of noisy latents, for token ids [b, 32]."""
        states = self.text_encoder(tokens).last_hidden_state
        velocity: Tensor = self.unet(noisy.to(states.dtype), timesteps, states).sample
        return velocity.float()


class Sketcher(nn.Module):
    """The text encoder with a head that draws each emoji's latents from its name.

    The states of the last 16 positions are each read as one of 4×4 fields, 4×4 latents large. A
    UNet that attends to such states finds what belongs where it looks; from random states it
    takes several times as many steps to tell names apart.
    """

    fields, field = 4, 4

    def __init__(self, text_encoder: CLIPTextModel, channels: int = 4) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.head = nn.Linear(TEXT_WIDTH, channels * self.field**2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Latents [b, 4, 16, 16] for token ids [b, 32]."""
        states = self.text_encoder(tokens).last_hidden_state[:, -(self.fields**2) :]
        drawn: Tensor = self.head(states).float()
        shape = (self.fields, self.fields, -1, self.field, self.field)
        size = self.fields * self.field
        return (
            drawn.unflatten(1, shape[:2])
            .unflatten(3, shape[2:])
            .permute(0, 3, 1, 4, 2, 5)
            .reshape(len(tokens), -1, size, size)
        )


def learning_rate_factor(step: int, spent: float) -> float:
    """Warm up over 200 steps, hold, then from half of the budget on decay to a hundredth."""
    warm = min(1.0, (step + 1) / 200)
    return float(warm * 0.01 ** max(0.0, 2 * spent - 1))


def build_tokenizer(names: tuple[str, ...]) -> CLIPTokenizer:
    """A CLIP tokenizer of 2,048 tokens learnt on the names, able to spell any other text."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(names, trainer)
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    merges = merges[: VOCABULARY - len(letters) - 2]
    tokens = dict.fromkeys([*letters, *map("".join, merges), BOS, EOS])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=PROMPT_TOKENS)


def build_vae() -> AutoencoderKL:
    """The autoencoder: pictures [b, 3, 64, 64] to latents [b, 4, 16, 16] and back."""
    channels = (32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=64,
        mid_block_add_attention=False,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder: token ids [b, 32] to states [b, 32, 160]."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """The UNet on latents [b, 4, 16, 16], reading the prompt at its two coarser levels."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 96, 112),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


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


def train_vae(checkpoint: Path, budget: Budget, batch: int, seed: int) -> AutoencoderKL:
    """Train the autoencoder on all emoji, symbols included, and set its scaling factor."""
    stage = Stage(build_vae(), checkpoint, peak=2e-3)
    pictures = to_tensor(load_emoji(max_words=None, symbols=True))
    vae = stage.run(lambda working: vae_loss(working, pictures, batch), budget, seed)
    vae.register_to_config(scaling_factor=round(1 / float(encode(vae, pictures).std()), 4))
    return vae


def sketch_loss(sketcher: Sketcher, latents: Tensor, tokens: Tensor, batch: int) -> Tensor:
    """Squared error of the sketched latents."""
    chosen = torch.randint(len(latents), (batch,))
    loss: Tensor = nn.functional.mse_loss(sketcher(tokens[chosen]), latents[chosen])
    return loss


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
