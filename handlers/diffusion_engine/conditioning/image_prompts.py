"""Image prompts (IP-Adapter): a reference picture for some rows of a call, none for others.

A UNet with an IP-Adapter wants an image embedding for every row, and has one scale for all of them.
Here a row brings both: `conditions` adds them to a request's calls, as tensors that joining rules
know how to join, and a hook on the UNet hands them on for the length of one call. A row without a
picture has scale 0, which adds zeros; a call of such rows alone skips the adapter's attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_EMBEDS, _SCALES = "image_prompt", "image_prompt_scales"
"""Places of a row's embedding and scale among the conditions that a call adds."""

Conditions = Callable[[dict[str, Any]], dict[str, Any]]


class ImagePrompts:
    """The reference pictures of a served pipeline whose UNet has one IP-Adapter.

    Args:
        pipeline: the pipeline, its IP-Adapter loaded.
    """

    def __init__(self, pipeline: Any) -> None:
        self._processors = [
            processor
            for processor in pipeline.unet.attn_processors.values()
            if hasattr(processor, "to_k_ip")
        ]
        self._nothing = _embedding_of_nothing(pipeline)
        pipeline.unet.register_forward_pre_hook(self._place, with_kwargs=True)

    def conditions(self, scale: float | None) -> Conditions:
        """What a request's calls of the UNet get beside what its script says.

        `scale` is that of the request's own reference picture, None where it has none.
        """
        made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def added(arguments: dict[str, Any]) -> dict[str, Any]:
            given = dict(arguments.get("added_cond_kwargs") or {})
            if _SCALES in given:
                return arguments
            like = arguments["encoder_hidden_states"]
            rows = len(like)
            # The same tensors at each step: joined conditioning is known by its parts.
            if rows not in made:
                scales = torch.full((rows,), scale or 0.0, device=like.device)
                nothing = self._nothing.to(like.device, like.dtype)
                made[rows] = (nothing.expand(rows, *nothing.shape[1:]), scales)
            nothing, scales = made[rows]
            (embeds,) = given.pop("image_embeds", None) or (nothing,)
            given |= {_EMBEDS: embeds, _SCALES: scales}
            return {**arguments, "added_cond_kwargs": given}

        return added

    def _place(
        self, _unet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(kwargs["added_cond_kwargs"])
        scales, embeds = given.pop(_SCALES), given.pop(_EMBEDS)
        of_rows = RowScales(scales)
        for processor in self._processors:
            processor.scale[0] = of_rows
        return args, {**kwargs, "added_cond_kwargs": {**given, "image_embeds": [embeds]}}


class RowScales:
    """A scale for each row of a call, where an attention processor expects one number.

    Processors ask it two things: whether it is 0, and its product with [rows, tokens, width].
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, scales: torch.Tensor) -> None:
        self._scales = scales
        self._none = not bool(scales.any())

    def __eq__(self, other: object) -> bool:
        return self._none and other == 0

    def __mul__(self, states: torch.Tensor) -> torch.Tensor:
        if len(states) != len(self._scales):
            raise RuntimeError(f"{len(states)} rows in a call of {len(self._scales)}")
        # In float32, and rounded once: so does torch with a Python number.
        return (self._scales[:, None, None] * states).to(states.dtype)


def _embedding_of_nothing(pipeline: Any) -> torch.Tensor:
    """Zeros in the shape of one row's embedding, [1, pictures, …]."""
    side = pipeline.image_encoder.config.image_size
    picture = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        (embedding,) = pipeline.prepare_ip_adapter_image_embeds(
            [picture], None, pipeline._execution_device, 1, False
        )
    return torch.zeros_like(embedding)
