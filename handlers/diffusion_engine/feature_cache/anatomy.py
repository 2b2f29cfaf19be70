"""Which blocks of a denoiser may be skipped, and how the rows of a call pass through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import Deep, FirstBlock, require_supported


@dataclass(frozen=True)
class Anatomy:
    """A denoiser, cut in two.

    Attributes:
        head: the block that decides, None where steps do.
        deep: the blocks that rows may skip, in the order of their calls.
        by_row: parameters of these blocks that hold the call's rows.
        whole_if: arguments of the denoiser that reach into its blocks: a call with one of them
            skips nothing and keeps nothing.
        hidden: the latents in a block's output.
        with_hidden: the same output with other latents.
        passed: a block's output as if the block did nothing, from its arguments.
    """

    head: torch.nn.Module | None
    deep: tuple[torch.nn.Module, ...]
    by_row: frozenset[str]
    whole_if: frozenset[str]
    hidden: Callable[[Any], torch.Tensor]
    with_hidden: Callable[[Any, torch.Tensor], Any]
    passed: Callable[[torch.nn.Module, Mapping[str, Any]], Any]


def anatomy_of(model: Any, settings: FirstBlock | Deep) -> Anatomy:
    """The cut that the settings ask for; `ConfigError` where this model cannot be cut so."""
    name = type(model).__name__
    require_supported(settings, name)
    if isinstance(settings, Deep):
        return _unet(model, settings.depth)
    return _TRANSFORMERS[name](model)


def _unet(model: Any, depth: int) -> Anatomy:
    most = len(model.down_blocks) - 1
    if depth > most:
        raise ConfigError(
            f"handler.feature_cache.depth: must be at most {most}: this UNet has {most + 1} blocks "
            "at either end",
            field="handler.feature_cache.depth",
            bound={"maximum": most},
        )
    middle = () if model.mid_block is None else (model.mid_block,)
    return Anatomy(
        head=None,
        deep=(*model.down_blocks[depth:], *middle, *model.up_blocks[:-depth]),
        by_row=frozenset(
            {
                "hidden_states",
                "temb",
                "encoder_hidden_states",
                "attention_mask",
                "encoder_attention_mask",
                "res_hidden_states_tuple",
            }
        ),
        # ControlNets and T2I-Adapters add to what goes from one block to the next.
        whole_if=frozenset(
            {
                "down_block_additional_residuals",
                "mid_block_additional_residual",
                "down_intrablock_additional_residuals",
            }
        ),
        hidden=lambda output: output,
        with_hidden=lambda _output, hidden: hidden,
        passed=_around_a_unet_block,
    )


def _around_a_unet_block(block: torch.nn.Module, arguments: Mapping[str, Any]) -> Any:
    hidden = arguments["hidden_states"]
    if "res_hidden_states_tuple" in arguments or not hasattr(block, "downsamplers"):
        return hidden
    parts: Any = block
    # As many as the blocks on the other side will take; nobody reads them.
    return hidden, (hidden,) * (len(parts.resnets) + len(parts.downsamplers or ()))


def _two_streams(model: Any, blocks: list[torch.nn.Module], whole_if: frozenset[str]) -> Anatomy:
    """Blocks that answer with text and latents, of which only the latents go on after the last."""
    return Anatomy(
        head=blocks[0],
        deep=_others(model, blocks),
        by_row=frozenset(
            {"hidden_states", "encoder_hidden_states", "temb", "joint_attention_kwargs"}
        ),
        whole_if=whole_if,
        hidden=lambda output: output[1],
        with_hidden=lambda output, hidden: (output[0], hidden),
        passed=lambda _, arguments: (
            arguments["encoder_hidden_states"],
            arguments["hidden_states"],
        ),
    )


def _flux(model: Any) -> Anatomy:
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    controlled = frozenset({"controlnet_block_samples", "controlnet_single_block_samples"})
    return _two_streams(model, blocks, controlled)


def _sd3(model: Any) -> Anatomy:
    # Layers that are skipped for guidance may be the first or the last.
    controlled = frozenset({"block_controlnet_hidden_states", "skip_layers"})
    return _two_streams(model, list(model.transformer_blocks), controlled)


def _pixart(model: Any) -> Anatomy:
    blocks = list(model.transformer_blocks)
    return Anatomy(
        head=blocks[0],
        deep=_others(model, blocks),
        by_row=frozenset(
            {
                "hidden_states",
                "encoder_hidden_states",
                "attention_mask",
                "encoder_attention_mask",
                "timestep",
            }
        ),
        whole_if=frozenset(),
        hidden=lambda output: output,
        with_hidden=lambda _output, hidden: hidden,
        passed=lambda _, arguments: arguments["hidden_states"],
    )


def _others(model: Any, blocks: list[torch.nn.Module]) -> tuple[torch.nn.Module, ...]:
    if len(blocks) < 2:
        raise ConfigError(
            f"handler.feature_cache: this {type(model).__name__} has one block, and none to skip",
            field="handler.feature_cache",
        )
    return tuple(blocks[1:])


_TRANSFORMERS: dict[str, Callable[[Any], Anatomy]] = {
    "FluxTransformer2DModel": _flux,
    "PixArtTransformer2DModel": _pixart,
    "SD3Transformer2DModel": _sd3,
}
