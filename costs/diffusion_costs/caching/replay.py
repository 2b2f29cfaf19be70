"""What a cache of some size would have found: least recently used goes first, as in the gateway."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from diffusion_costs.caching.accesses import Access


@dataclass(frozen=True, slots=True)
class Found:
    """What a cache of `size` bytes found in a trace.

    Attributes:
        hits: requests that were answered from it; writes: pictures that were kept.
        device_s: that the hits did not take; served: bytes of their files.
    """

    size: int
    hits: int
    writes: int
    device_s: float
    served: int


def replay(trace: Sequence[Access], size: int, lifetime_s: float = inf) -> Found:
    """What a cache of so many bytes would have found."""
    return repeats(trace, size, lifetime_s)[0]


def repeats(
    trace: Sequence[Access], size: int, lifetime_s: float = inf
) -> tuple[Found, list[bool]]:
    """The same, and for each request whether it was found; the very rules of the gateway's cache.

    A hit makes a picture the most recently used and does not prolong its life. Before a picture is
    kept, all that have outlived `lifetime_s` go, then the least recently used until it fits; one
    that is larger than the cache is not kept. A repeat that comes while the first is being drawn
    counts as a hit: it shares that drawing.
    """
    kept: OrderedDict[int, tuple[float, int]] = OrderedDict()
    # All live equally long, so they end in the order in which they were kept.
    ends: OrderedDict[int, float] = OrderedDict()
    taken = hits = writes = served = 0
    device_s = 0.0
    flags = [False] * len(trace)
    for place, one in enumerate(trace):
        if one.key is None:
            continue
        held = kept.get(one.key)
        if held is not None and held[0] > one.time:
            kept.move_to_end(one.key)
            flags[place] = True
            hits, served, device_s = hits + 1, served + held[1], device_s + one.device_s
            continue
        if held is not None:
            taken -= kept.pop(one.key)[1]
            del ends[one.key]
        if one.size > size:
            continue
        while ends and (first := next(iter(ends.items())))[1] <= one.time:
            taken -= kept.pop(first[0])[1]
            del ends[first[0]]
        while taken + one.size > size:
            gone, (_, bytes_) = kept.popitem(last=False)
            taken -= bytes_
            del ends[gone]
        kept[one.key] = (one.time + lifetime_s, one.size)
        ends[one.key] = one.time + lifetime_s
        taken += one.size
        writes += 1
    return Found(size, hits, writes, device_s, served), flags


def distances(trace: Sequence[Access]) -> Iterator[tuple[Access, int | None]]:
    """For each request of a picture, the least cache that would have held it; None: it was new.

    The bytes of all pictures asked for since it was last asked for, its own among them (Mattson's
    stack distance, in bytes). Exact while nothing outlives its life and every picture fits. Takes
    O(n log n), with sums over the moments of last use kept in a Fenwick tree.
    """
    count = len(trace)
    tree = [0] * (count + 1)
    last: dict[int, int] = {}

    def add(place: int, by: int) -> None:
        while place <= count:
            tree[place] += by
            place += place & -place

    def up_to(place: int) -> int:
        total = 0
        while place:
            total += tree[place]
            place &= place - 1
        return total

    total = 0
    for place, one in enumerate(trace, 1):
        if one.key is None:
            continue
        before = last.get(one.key)
        if before is None:
            yield one, None
            total += one.size
        else:
            yield one, total - up_to(before - 1)
            add(before, -one.size)
        add(place, one.size)
        last[one.key] = place


def curve(trace: Sequence[Access], sizes: Sequence[int], lifetime_s: float = inf) -> list[Found]:
    """What caches of these sizes would have found.

    In one pass where nothing can outlive its life, else by a replay of each.
    """
    span = trace[-1].time - trace[0].time if trace else 0.0
    largest = max((one.size for one in trace if one.key is not None), default=0)
    if lifetime_s <= span or min(sizes, default=0) < largest:
        return [replay(trace, size, lifetime_s) for size in sizes]
    asked = 0
    again = []
    for one, distance in distances(trace):
        asked += 1
        if distance is not None:
            again.append((distance, one.device_s, one.size))
    again.sort()
    bounds = [distance for distance, _, _ in again]
    seconds = list(accumulate((one[1] for one in again), initial=0.0))
    served = list(accumulate((one[2] for one in again), initial=0))
    made = []
    for size in sizes:
        hits = bisect_right(bounds, size)
        made.append(Found(size, hits, asked - hits, seconds[hits], served[hits]))
    return made
