"""Tiny denoisers and VAEs: the settings of each class. Latents have four channels."""

from __future__ import annotations

from typing import Any

from tiny_pipelines.texts import CLIP_WIDTH, WIDTH

LATENT_CHANNELS = 4


def network(name: str, **settings: Any) -> Any:
    """A model of the diffusers class `name`; `KeyError` if no settings are known here."""
    import diffusers

    return getattr(diffusers, name)(**{**SETTINGS[name], **settings}).eval()


_UNET = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "sample_size": 16,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": CLIP_WIDTH,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}

_OF_UNETS_ALONE = ("up_block_types", "out_channels", "sample_size")

# Latents packed two by two: four times the channels.
_PACKED = {"in_channels": 4 * LATENT_CHANNELS, "num_attention_heads": 2, "attention_head_dim": 16}

_VAE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": 8,
    "sample_size": 32,
    "shift_factor": 0.06,
    "scaling_factor": 1.5,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": _UNET,
    "SD3Transformer2DModel": {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 2 * CLIP_WIDTH,
        "pos_embed_max_size": 32,
    },
    "FluxTransformer2DModel": {
        **_PACKED,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": CLIP_WIDTH,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 8),
    },
    "QwenImageTransformer2DModel": {
        **_PACKED,
        "patch_size": 2,
        "out_channels": LATENT_CHANNELS,
        "num_layers": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 4, 8),
    },
    "ZImageTransformer2DModel": {
        "in_channels": LATENT_CHANNELS,
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": WIDTH,
        "axes_dims": [8, 4, 4],
        "axes_lens": [1024, 64, 64],
    },
    "PixArtTransformer2DModel": {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": LATENT_CHANNELS,
        "out_channels": 2 * LATENT_CHANNELS,
        "num_layers": 2,
        "cross_attention_dim": 32,
        "caption_channels": WIDTH,
        "sample_size": 32,
        "patch_size": 2,
        "use_additional_conditions": False,
    },
    "SanaTransformer2DModel": {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": WIDTH,
        "sample_size": 16,
    },
    "AuraFlowTransformer2DModel": {
        "sample_size": 16,
        "in_channels": LATENT_CHANNELS,
        "num_mmdit_layers": 1,
        "num_single_dit_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 256,
    },
    "ChromaTransformer2DModel": {
        **_PACKED,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 4, 8),
        "approximator_num_channels": 8,
        "approximator_hidden_dim": 32,
        "approximator_layers": 1,
    },
    "OvisImageTransformer2DModel": {
        **_PACKED,
        "out_channels": None,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 4, 8),
    },
    "Lumina2Transformer2DModel": {
        "sample_size": 16,
        "in_channels": LATENT_CHANNELS,
        "hidden_size": 24,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 3,
        "num_kv_heads": 1,
        "multiple_of": 2,
        "axes_dim_rope": (4, 2, 2),
        "axes_lens": (300, 64, 64),
        "cap_feat_dim": WIDTH,
    },
    "CogView3PlusTransformer2DModel": {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "text_embed_dim": WIDTH,
        "time_embed_dim": 8,
        "condition_dim": 8,
        "pos_embed_max_size": 16,
        "sample_size": 16,
    },
    "CogView4Transformer2DModel": {
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "text_embed_dim": WIDTH,
        "time_embed_dim": 8,
        "condition_dim": 8,
        "pos_embed_max_size": 16,
        "sample_size": 16,
        "rope_axes_dim": (64, 64),
    },
    "HunyuanDiT2DModel": {
        "sample_size": 16,
        "num_layers": 2,
        "patch_size": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 3,
        "hidden_size": 24,
        "in_channels": LATENT_CHANNELS,
        "cross_attention_dim": WIDTH,
        "cross_attention_dim_t5": WIDTH,
        "pooled_projection_dim": 16,
        "activation_fn": "gelu-approximate",
    },
    "ControlNetModel": {
        **{name: value for name, value in _UNET.items() if name not in _OF_UNETS_ALONE},
        "conditioning_embedding_out_channels": (8, 16),
    },
    "AutoencoderKL": _VAE,
    "AutoencoderKLQwenImage": {
        "base_dim": 16,
        "z_dim": LATENT_CHANNELS,
        "dim_mult": [1, 2],
        "num_res_blocks": 1,
        "temperal_downsample": [False],
        "latents_mean": [0.1, -0.1, 0.0, 0.2],
        "latents_std": [1.5, 0.8, 1.1, 0.9],
    },
    "AutoencoderDC": {
        "latent_channels": LATENT_CHANNELS,
        "attention_head_dim": 2,
        "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
        "encoder_block_out_channels": (8, 8),
        "decoder_block_out_channels": (8, 8),
        "encoder_qkv_multiscales": ((), (5,)),
        "decoder_qkv_multiscales": ((), (5,)),
        "encoder_layers_per_block": (1, 1),
        "decoder_layers_per_block": (1, 1),
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        "decoder_norm_types": "rms_norm",
        "decoder_act_fns": "silu",
        "scaling_factor": 0.41407,
    },
}
