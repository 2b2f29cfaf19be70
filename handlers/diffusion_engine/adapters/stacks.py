"""One call's adapters, row by row: what each layer multiplies its rows with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from diffusion_engine.adapters.weights import LowRank

Blend = tuple[tuple[str, float], ...]
"""What one request adds to a model: adapters with their weights, sorted by name."""

NO_BLEND: Blend = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """The two factors of a layer, one pair for all rows or a pair for each.

    Attributes:
        down: [rank, in, …] for all rows, [rows, rank, in, …] for each.
        up: [out, rank, …], [rows, out, rank]; weights and scalings are in it.
        rows: how many rows the call has; None: one pair for all of them.
    """

    down: torch.Tensor
    up: torch.Tensor
    rows: int | None


def stack_for_all(adapters: Mapping[str, LowRank], blend: Blend) -> Stack | None:
    """A layer's factors in a call whose rows are of one blend; None where it adds nothing."""
    pair = _factors(adapters, blend)
    return None if pair is None else Stack(*pair, None)


def stack_by_row(
    adapters: Mapping[str, LowRank], rows: Sequence[Blend], rank: int | None = None
) -> Stack | None:
    """A layer's factors, a pair for each row; None where no row's blend has this layer.

    Ranks are filled up with zeros to the largest of the call, or to `rank`: products of one shape
    are the same in every bit whatever the other rows hold. A row never meets another's adapter.
    """
    blends = list(dict.fromkeys(rows))
    pairs = [_factors(adapters, blend) for blend in blends]
    found = [pair for pair in pairs if pair is not None]
    if not found:
        return None
    like_down, like_up = found[0]
    most = rank or max(len(down) for down, _ in found)
    downs = like_down.new_zeros((len(blends), most, *like_down.shape[1:]))
    ups = like_up.new_zeros((len(blends), len(like_up), most))
    for number, pair in enumerate(pairs):
        if pair is not None:
            down, up = pair
            downs[number, : len(down)] = down
            ups[number, :, : len(down)] = up.flatten(1)
    index = torch.tensor([blends.index(row) for row in rows], device=downs.device)
    return Stack(downs[index], ups[index], len(rows))


def _factors(
    adapters: Mapping[str, LowRank], blend: Blend
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Several adapters are one of the sum of their ranks."""
    chosen = [(adapters[name], weight) for name, weight in blend if name in adapters]
    if not chosen:
        return None
    down = torch.cat([low.down for low, _ in chosen])
    up = torch.cat([low.up * (weight * low.scaling) for low, weight in chosen], dim=1)
    return down, up
