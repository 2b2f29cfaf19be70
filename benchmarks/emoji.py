"""The demonstration model's own measure: which emoji of all is nearest to a picture."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any

import torch

from diffusion_engine.images import to_image


@functools.cache
def _emoji() -> Any:
    """The set, None on a machine without its font."""
    import emoji_data

    try:
        return emoji_data.load_emoji()
    except FileNotFoundError:
        return None


def names(count: int) -> list[str]:
    """Names of emoji, the same at each call; one and the same where the font is missing."""
    known = _emoji()
    if known is None:
        return ["red heart"] * count
    return random.Random(0).sample(known.names, count)


def recognised(pictures: Sequence[torch.Tensor], asked: Sequence[str]) -> float | None:
    """The share of pictures [3, H, W] in [0, 1] whose nearest emoji is the one asked for.

    None where the font is missing or these are no emoji.
    """
    known = _emoji()
    if known is None or not set(asked) <= set(known.names):
        return None
    nearest = [known.nearest(to_image(picture), 1)[0] for picture in pictures]
    return sum(a == b for a, b in zip(nearest, asked, strict=True)) / len(nearest)
