"""Pictures to fit previews to: discs that hide each other, the dead leaves model."""

from __future__ import annotations

from math import sqrt

import torch

_LEAVES = 20
_SMALLEST, _LARGEST = 1 / 32, 1 / 2


def dead_leaves(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Scenes [count, 3, side, side] in [0, 1], the same for a seed on every machine.

    Discs of any colour fall on each other, their radii distributed as r⁻³: edges, areas and
    colours then follow each other much as in photographs, at every scale alike (Lee, Mumford and
    Huang, "Occlusion models for natural images", 2001).
    """
    chance = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    scenes = torch.rand(count, 3, 1, 1, generator=chance).repeat(1, 1, side, side)
    for scene in scenes:
        for _ in range(_LEAVES):
            y, x, share = torch.rand(3, generator=chance).tolist()
            radius = side * _SMALLEST / sqrt(1 - share * (1 - (_SMALLEST / _LARGEST) ** 2))
            inside = (rows - side * y) ** 2 + (columns - side * x) ** 2 < radius**2
            scene[:, inside] = torch.rand(3, 1, generator=chance)
    return scenes
