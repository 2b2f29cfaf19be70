"""A denoiser's outputs: cut into each call's rows, put together again, and made of zeros."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch


def split_output(output: Any, rows: Sequence[int]) -> list[Any]:
    """A joined call's output cut into each call's rows; padding beyond them is dropped."""
    bounds = [0, *accumulate(rows)]
    return [_cut(output, start, stop) for start, stop in pairwise(bounds)]


def join_outputs(outputs: Sequence[Any]) -> Any:
    """The inverse: outputs of consecutive rows as one."""
    first = outputs[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, list):
        return [row for rows in outputs for row in rows]
    if isinstance(first, tuple):
        return tuple(join_outputs(parts) for parts in zip(*outputs, strict=True))
    return type(first)(**{name: join_outputs([one[name] for one in outputs]) for name in first})


def picture_of_zeros(sample: torch.Tensor, model: Any) -> torch.Tensor:
    """For latents laid out as a picture, [rows, channels, …]."""
    return sample.new_zeros((sample.shape[0], _channels(model), *sample.shape[2:]))


def sequence_of_zeros(sample: torch.Tensor, model: Any) -> torch.Tensor:
    """For latents packed into a sequence, [rows, tokens, patch² · channels]."""
    return sample.new_zeros((*sample.shape[:-1], model.config.patch_size**2 * _channels(model)))


def list_of_zeros(sample: Sequence[torch.Tensor], _model: Any) -> list[torch.Tensor]:
    """For a list with the latents of each row."""
    return [torch.zeros_like(row) for row in sample]


def _channels(model: Any) -> int:
    config = model.config
    return int(getattr(model, "out_channels", None) or config.out_channels or config.in_channels)


def _cut(output: Any, start: int, stop: int) -> Any:
    # A list holds rows, a tuple what a model returns beside each other.
    if isinstance(output, (torch.Tensor, list)):
        return output[start:stop]
    if isinstance(output, tuple):
        return tuple(_cut(part, start, stop) for part in output)
    return type(output)(**{name: _cut(value, start, stop) for name, value in output.items()})
