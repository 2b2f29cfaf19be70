"""Magnitude pruning: the smallest weights become zeros, and the layers keep their shapes."""

from __future__ import annotations

import torch
from torch.nn.utils import prune


def mask_smallest(model: torch.nn.Module, part: float) -> int:
    """Sets the smallest `part` (0 to 1) of each layer's weights to zero; returns how many.

    Convolutions and linear layers, each by itself, by absolute value (Han et al., 2015). A model
    that was pruned before is left as it is: its smallest weights are the zeros.
    """
    zeros = 0
    for layer in layers_of(model):
        prune.l1_unstructured(layer, "weight", amount=part)  # type: ignore[no-untyped-call]
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
        zeros += layer.weight.numel() - int(torch.count_nonzero(layer.weight))
    return zeros


def layers_of(model: torch.nn.Module) -> list[torch.nn.Linear | torch.nn.Conv2d]:
    """The layers that hold nearly all of a denoiser's weights."""
    return [one for one in model.modules() if isinstance(one, (torch.nn.Linear, torch.nn.Conv2d))]
