"""A rough picture of latents by a linear map to colours, fitted to the VAE it stands for."""

from __future__ import annotations

from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray

_REACH = 3
"""Latents on a side of the square that a colour is made of: decoders look at neighbours too."""

_FINEST = 4
"""Pixels on a side that are made of each latent, at most: what lies between them is not linear."""

_PACKED_EDGE = 2
"""Pipelines that pack latents into a sequence make one token of two by two of them."""


class LatentPreview:
    """Maps latents to small pictures.

    Each latent becomes a square of colours by an affine map of it and its eight neighbours, the
    least-squares fit of what the VAE decodes: some microseconds where a decode takes as long as
    steps do.

    Args:
        weight: the map, [3·edge², channels, 3, 3].
        bias: its constant part, [3·edge²].
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight = weight
        self.bias = bias
        # Bytes are cut off, so a half more rounds them: two passes less at every step.
        self._to_bytes = (255 * weight, 255 * bias + 0.5)
        self._edge = round(sqrt(len(bias) / 3))

    @classmethod
    def fit(cls, grid: torch.Tensor, images: torch.Tensor) -> LatentPreview:
        """The map that best takes latents [n, C, h, w] to images [n, 3, H, W] in [0, 1]."""
        height, width = grid.shape[-2:]
        edge = max(1, min(_FINEST, images.shape[-1] // width))
        small = torch.nn.functional.interpolate(
            images.float().cpu(), (height * edge, width * edge), mode="area"
        )
        targets = torch.nn.functional.pixel_unshuffle(small, edge).flatten(2).mT.flatten(0, 1)
        squares = torch.nn.functional.unfold(_bordered(grid.float().cpu()), _REACH)
        rows = squares.mT.flatten(0, 1)
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
        solution = torch.linalg.lstsq(rows, targets).solution.mT
        weight = solution[:, :-1].reshape(len(solution), -1, _REACH, _REACH)
        return cls(weight.contiguous(), solution[:, -1].contiguous())

    def __call__(self, latents: torch.Tensor, height: int, width: int) -> NDArray[np.uint8]:
        """The picture [h, w, 3] of one image's latents, which is to have these proportions.

        Raises `ValueError` for latents that are no pictures.
        """
        grid = as_grid(latents[None], height, width).float().cpu()
        squares = torch.nn.functional.conv2d(_bordered(grid), *self._to_bytes).clamp_(0, 255).byte()
        # What pixel_shuffle does, and colours last: views, and one copy.
        rows, columns = (self._edge * side for side in grid.shape[-2:])
        parts = squares.reshape(3, self._edge, self._edge, *grid.shape[-2:]).permute(3, 1, 4, 2, 0)
        pixels: NDArray[np.uint8] = parts.reshape(rows, columns, 3).numpy()
        return pixels


def as_grid(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Latents [n, C, h, w] as they are; packed ones [n, tokens, 4·C], row by row, unpacked.

    Raises `ValueError` for latents that are no pictures.
    """
    if latents.ndim == 3:
        tokens = latents.shape[1]
        rows = max(1, round(sqrt(tokens * height / width)))
        if tokens % rows == 0 and latents.shape[2] % _PACKED_EDGE**2 == 0:
            packed = latents.mT.reshape(len(latents), -1, rows, tokens // rows)
            return torch.nn.functional.pixel_shuffle(packed, _PACKED_EDGE)
    if latents.ndim != 4:
        raise ValueError("latents of this pipeline are not laid out as a picture")
    return latents


def _bordered(grid: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(grid, (_REACH // 2,) * 4, mode="replicate")
