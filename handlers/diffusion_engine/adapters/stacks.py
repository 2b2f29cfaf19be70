"""One call's adapters, row by row: what each layer multiplies its rows with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from diffusion_engine.adapters.weights import LowRank

Blend = tuple[tuple[str, float], ...]
"""What one request adds to a model: adapters with their weights, sorted by name."""

NO_BLEND: Blend = ()


@dataclass(frozen=True, slots=True)
class Product:
    """Two factors of a layer, one pair for all rows or a pair for each.

    Attributes:
        down: [rank, in, …] for all rows, [rows, rank, in, …] for each.
        up: [out, rank, …], [rows, out, rank].
        scale: what the product is multiplied with, a number or [rows]; None: it is in `up`.
    """

    down: torch.Tensor
    up: torch.Tensor
    scale: torch.Tensor | float | None


@dataclass(frozen=True, slots=True)
class Stack:
    """What a layer adds in one call: a sum of products.

    Attributes:
        rows: how many rows the call has; None: the factors are the same for all of them.
    """

    products: tuple[Product, ...]
    rows: int | None


def stack_for_all(adapters: Mapping[str, LowRank], blend: Blend) -> Stack | None:
    """A layer's factors in a call whose rows are of one blend; None where it adds nothing."""
    chosen = _merged(_chosen(adapters, blend))
    if not chosen:
        return None
    return Stack(tuple(Product(one.down, one.up, _scale(one)) for one in chosen), None)


def stack_by_row(
    adapters: Mapping[str, LowRank], rows: Sequence[Blend], most: int | None = None
) -> Stack | None:
    """A layer's factors, a pair for each row; None where no row's blend has this layer.

    Ranks are filled up with zeros to the largest of the call. A row never meets another's adapter.

    Args:
        most: adapters that a request may have. If it is given, products are of one shape whatever
            the blends, so that a row is the same in every bit in any company.
    """
    blends = list(dict.fromkeys(rows))
    merged = [_merged(_chosen(adapters, blend)) for blend in blends]
    if not any(merged):
        return None
    index = [blends.index(row) for row in rows]
    rank = 0 if most is None else _widest(adapters, most)
    depth = max(map(len, merged))
    places = [[one[n] if n < len(one) else None for one in merged] for n in range(depth)]
    return Stack(tuple(_gathered(place, index, rank) for place in places), len(rows))


def _chosen(adapters: Mapping[str, LowRank], blend: Blend) -> list[LowRank]:
    """The blend's factors for a layer; weights are in their scalings."""
    return [
        replace(adapters[name], scaling=adapters[name].scaling * weight)
        for name, weight in blend
        if name in adapters
    ]


def _merged(chosen: Sequence[LowRank]) -> list[LowRank]:
    """In float32 several are one of the sum of their ranks, its scaling in a factor.

    In lower precision that would round otherwise than diffusers does, which adds them one by one.
    """
    if not chosen or chosen[0].up.dtype != torch.float32:
        return list(chosen)
    down = torch.cat([low.down for low in chosen])
    up = torch.cat([low.up * low.scaling for low in chosen], dim=1)
    return [LowRank(down, up, 1.0)]


def _widest(adapters: Mapping[str, LowRank], most: int) -> int:
    """The largest rank that a blend of so many can have in one product."""
    ranks = sorted((low.rank for low in adapters.values()), reverse=True)[:most]
    together = next(iter(adapters.values())).up.dtype == torch.float32
    return sum(ranks) if together else ranks[0]


def _gathered(place: Sequence[LowRank | None], index: Sequence[int], rank: int) -> Product:
    """The factors of each row, `index` telling which of `place` they are."""
    found = [low for low in place if low is not None]
    like, rank = found[0], max(rank, *(low.rank for low in found))
    downs = like.down.new_zeros((len(place), rank, *like.down.shape[1:]))
    ups = like.up.new_zeros((len(place), len(like.up), rank))
    # Not in the factors' dtype: a weight of 0.7 is none that bfloat16 has.
    scales = torch.zeros(len(place), device=ups.device)
    for number, low in enumerate(place):
        if low is not None:
            downs[number, : low.rank] = low.down
            ups[number, :, : low.rank] = low.up.flatten(1)
            scales[number] = low.scaling
    gather = torch.tensor(index, device=downs.device)
    scale = None if _scale(like) is None else scales[gather]
    return Product(downs[gather], ups[gather], scale)


def _scale(low: LowRank) -> float | None:
    return None if low.up.dtype == torch.float32 else low.scaling
