"""The rules by denoiser class. docs/adding-a-pipeline.md tells how one is found and tested."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusion_engine.rules.kinds import Listed, OneForAll, Residual, Shared, Text, TextMask
from diffusion_engine.rules.outputs import list_of_zeros, picture_of_zeros, sequence_of_zeros
from diffusion_engine.rules.rule import JoiningRule

_picture = partial(JoiningRule, rows="hidden_states", zeros=picture_of_zeros)
_sequence = partial(JoiningRule, rows="hidden_states", zeros=sequence_of_zeros)

# FLUX.1 and its kin. The ids say where each token lies: pictures of other proportions may have as
# many tokens, and the model knows one set of ids for all rows.
_flux = partial(_sequence, kinds={"img_ids": Shared(), "txt_ids": Shared()})

_RULES: dict[str, Callable[[Any], JoiningRule]] = {
    # UNets take a timestep a row and treat rows apart: Stable Diffusion 1.x, 2.x and XL, Kolors.
    "UNet2DConditionModel": partial(
        JoiningRule,
        rows="sample",
        zeros=picture_of_zeros,
        kinds={
            "down_block_additional_residuals": Residual("mid_block_additional_residual"),
            "mid_block_additional_residual": Residual("down_block_additional_residuals"),
        },
    ),
    # Their ControlNets: a picture for each row, at a scale of 1 (`conditioning/control.py`).
    "ControlNetModel": partial(JoiningRule, rows="sample", zeros=picture_of_zeros),
    # Stable Diffusion 3. `skip_layers` says which layers a whole call leaves out.
    "SD3Transformer2DModel": _picture,
    "PixArtTransformer2DModel": _picture,
    "SanaTransformer2DModel": _picture,
    "AuraFlowTransformer2DModel": _picture,
    "CogView3PlusTransformer2DModel": _picture,
    "CogView4Transformer2DModel": _picture,
    # Rotary embeddings are made for one size and given to the call.
    "HunyuanDiT2DModel": _picture,
    "Lumina2Transformer2DModel": _picture,
    "FluxTransformer2DModel": _flux,
    "ChromaTransformer2DModel": _flux,
    "OvisImageTransformer2DModel": _flux,
    # Qwen-Image. Of the shapes the model reads the first only. Prompts have a token count each;
    # positions of a picture's tokens do not depend on it, and the mask hides what is added.
    "QwenImageTransformer2DModel": partial(
        _sequence,
        kinds={
            "img_shapes": OneForAll(),
            "encoder_hidden_states": Text(),
            "encoder_hidden_states_mask": TextMask("encoder_hidden_states"),
        },
    ),
    # Z-Image takes lists, pads prompts to multiples of 32 tokens (SEQ_MULTI_OF) and to the longest,
    # and masks the latter. A picture's positions follow its own prompt's length.
    "ZImageTransformer2DModel": partial(
        JoiningRule,
        rows="x",
        zeros=list_of_zeros,
        timestep="t",
        kinds={"x": Listed(), "cap_feats": Listed(padded_to=32)},
    ),
}


def rule_for(model: Any) -> JoiningRule | None:
    """The joining rule of a denoiser, None where there is none and its calls run alone."""
    build = _RULES.get(type(model).__name__)
    return None if build is None else build(model)
