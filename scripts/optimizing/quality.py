"""How far pictures moved from the original's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Moved:
    """Distances of a variant's pictures from the original's, seed by seed.

    Attributes:
        psnr: decibels, of the mean squared error of all pixels of all pictures; None: no pixel
            differs.
        ssim: structural similarity (Wang et al., 2004), the pictures' mean.
        worst_ssim: that of the picture that moved most.
        flip: FLIP (Andersson et al., 2020), mean of the pictures' mean errors, as seen at 67 pixels
            a degree.
        top1: part of the pictures whose nearest emoji is the one that was asked for; None for
            pipelines that do not draw emoji.
    """

    psnr: float | None
    ssim: float
    worst_ssim: float
    flip: float
    top1: float | None = None

    def value(self, metric: str) -> float | None:
        """A measure by its name; PSNR of equal pictures is infinite."""
        if metric == "psnr":
            return math.inf if self.psnr is None else self.psnr
        found: float | None = getattr(self, metric)
        return found


def compare(
    originals: Sequence[Image.Image],
    pictures: Sequence[Image.Image],
    names: Sequence[str] | None = None,
) -> Moved:
    """Compares pictures of one size, pair by pair.

    Args:
        names: the emoji that were asked for, where it is emoji.
    """
    from skimage.metrics import structural_similarity

    pairs = [(_array(a), _array(b)) for a, b in zip(originals, pictures, strict=True)]
    errors = [float(np.square(a.astype(np.float64) - b).mean()) for a, b in pairs]
    similar = [float(structural_similarity(a, b, channel_axis=2, data_range=255)) for a, b in pairs]
    error = float(np.mean(errors))
    return Moved(
        psnr=10 * math.log10(255**2 / error) if error else None,
        ssim=float(np.mean(similar)),
        worst_ssim=min(similar),
        flip=float(np.mean([_flip(a, b) for a, b in pairs])),
        top1=None if names is None else _top1(pictures, names),
    )


def farthest(picture: Image.Image, other: Image.Image) -> int:
    """The largest difference of any pixel, of 255."""
    return int(np.abs(_array(picture).astype(np.int16) - _array(other)).max())


def _array(picture: Image.Image) -> Any:
    return np.asarray(picture.convert("RGB"))


def _flip(original: Any, picture: Any) -> float:
    import flip_evaluator

    scaled = [one.astype(np.float32) / 255 for one in (original, picture)]
    _, error, _ = flip_evaluator.evaluate(*scaled, "LDR", applyMagma=False)
    return float(error)


def _top1(pictures: Sequence[Image.Image], names: Sequence[str]) -> float:
    from emoji_data import load_emoji

    emoji = load_emoji()
    right = [
        emoji.nearest(picture, 1)[0] == name for picture, name in zip(pictures, names, strict=True)
    ]
    return sum(right) / len(right)
