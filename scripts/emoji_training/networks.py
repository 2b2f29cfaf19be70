"""The parts of the demonstration pipeline, untrained."""

from __future__ import annotations

import json

from diffusers.models import AutoencoderKL, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 2048
PROMPT_TOKENS = 32
TEXT_WIDTH = 160


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
        size, field = self.fields * self.field, self.field
        grid = drawn.reshape(len(tokens), self.fields, self.fields, -1, field, field)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, size, size)


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
