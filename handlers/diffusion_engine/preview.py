"""A rough picture of latents by a linear map to colours, fitted to the VAE it stands for."""

from __future__ import annotations

import torch


class LatentPreview:
    """Maps latents [C, h, w] to an image [3, h, w] in [0, 1].

    Each latent pixel becomes a colour by an affine map, the least-squares fit of what the VAE
    decodes it to: some microseconds where a decode takes as long as steps do.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    @classmethod
    def fit(cls, latents: torch.Tensor, images: torch.Tensor) -> LatentPreview:
        """The map that best takes latents [n, C, h, w] to images [n, 3, H, W] in [0, 1].

        Raises `ValueError` for latents that are no pictures (packed into a sequence).
        """
        if latents.ndim != 4:
            raise ValueError("latents of this pipeline are not laid out as a picture")
        small = torch.nn.functional.interpolate(images.float(), latents.shape[-2:], mode="area")
        solution = torch.linalg.lstsq(_pixels(latents), small.movedim(1, -1).reshape(-1, 3))
        return cls(solution.solution)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        height, width = latents.shape[-2:]
        colours = _pixels(latents[None]) @ self._matrix
        return colours.clamp(0, 1).reshape(height, width, 3).movedim(-1, 0)


def _pixels(latents: torch.Tensor) -> torch.Tensor:
    """Latents [n, C, h, w] as rows [n·h·w, C + 1], the last column one."""
    rows = latents.float().cpu().movedim(1, -1).flatten(0, 2)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
