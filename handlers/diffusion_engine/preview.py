"""A rough picture of latents by a linear map to colours, fitted to the VAE it stands for."""

from __future__ import annotations

from math import sqrt

import torch

_PACKED_EDGE = 2
"""Pipelines that pack latents into a sequence make one token of two by two of them."""


class LatentPreview:
    """Maps latents to an image [3, h, w] in [0, 1].

    Each latent pixel becomes a colour by an affine map, the least-squares fit of what the VAE
    decodes it to: some microseconds where a decode takes as long as steps do. A token of packed
    latents becomes two by two colours.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    @classmethod
    def fit(cls, latents: torch.Tensor, images: torch.Tensor) -> LatentPreview:
        """The map that best takes latents [n, …] to images [n, 3, H, W] in [0, 1].

        Raises `ValueError` for latents that are no pictures.
        """
        height, width = images.shape[-2:]
        grid, edge = _grid(latents, height, width), _edge(latents)
        size = (grid.shape[-2] * edge, grid.shape[-1] * edge)
        small = torch.nn.functional.interpolate(images.float(), size, mode="area")
        colours = torch.nn.functional.pixel_unshuffle(small, edge)
        targets = colours.movedim(1, -1).flatten(0, 2)
        return cls(torch.linalg.lstsq(_pixels(grid), targets).solution)

    def __call__(self, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The picture of one image's latents, which is to have these proportions."""
        grid = _grid(latents[None], height, width)
        colours = (_pixels(grid) @ self._matrix).clamp(0, 1)
        picture = colours.reshape(*grid.shape[-2:], -1).movedim(-1, 0)
        return torch.nn.functional.pixel_shuffle(picture, _edge(latents[None]))


def _edge(latents: torch.Tensor) -> int:
    return _PACKED_EDGE if latents.ndim == 3 else 1


def _grid(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Latents [n, C, h, w] as they are; packed ones [n, tokens, C], row by row, as [n, C, h, w]."""
    if latents.ndim == 3:
        tokens = latents.shape[1]
        rows = max(1, round(sqrt(tokens * height / width)))
        if tokens % rows == 0:
            return latents.transpose(1, 2).reshape(len(latents), -1, rows, tokens // rows)
    if latents.ndim != 4:
        raise ValueError("latents of this pipeline are not laid out as a picture")
    return latents


def _pixels(grid: torch.Tensor) -> torch.Tensor:
    """Latents [n, C, h, w] as rows [n·h·w, C + 1], the last column one."""
    rows = grid.float().cpu().movedim(1, -1).flatten(0, 2)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
