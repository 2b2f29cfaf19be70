"""Which blocks rows may pass by: those that add little, found by drawing a few pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from archiving.child import ChildError, run_python
from diffusion_core.errors import ConfigError

_PROGRAM = Path(__file__).with_name("contributions.py")

Contributions = Mapping[str, Sequence[tuple[float, float]]]


def skipped_blocks(
    folder: Path, handler: str, prompts: Sequence[str], part: float
) -> dict[str, tuple[float, float]]:
    """`handler.optimization.skipped_blocks` of the block-steps that add least to their input.

    Args:
        handler: the original's handler section, as JSON.
        prompts: what is drawn to find out.
        part: of all block-steps, which are to be skipped at most.

    Raises `ConfigError` where the denoiser has no attention blocks that add.
    """
    measured = _measured(folder, handler, tuple(prompts))
    added = sorted(one for by_time in measured.values() for _, one in by_time)
    if not added:
        raise ConfigError("skipping: the denoiser is no UNet with attention blocks")
    return spans_below(measured, added[min(len(added) - 1, int(part * len(added)))])


@cache
def _measured(folder: Path, handler: str, prompts: tuple[str, ...]) -> Contributions:
    order = {"folder": str(folder.resolve()), "handler": json.loads(handler), "prompts": prompts}
    try:
        printed = run_python([str(_PROGRAM)], order)
    except ChildError as error:
        raise ConfigError(f"what blocks add could not be measured: {error}") from None
    found: Contributions = json.loads(printed.splitlines()[-1])
    return found


def spans_below(contributions: Contributions, bound: float) -> dict[str, tuple[float, float]]:
    """For each block the longest run of timesteps at which it adds less than `bound`."""
    found = {}
    for name, by_time in contributions.items():
        times = [time for time, _ in by_time]
        run = _longest([added < bound for _, added in by_time])
        if run is not None:
            # Up to the next timestep that was seen: what lies between is like what was seen.
            above = times[run[1]] if run[1] < len(times) else times[-1] + 1
            found[name] = (times[run[0]], above)
    return found


def _longest(low: Sequence[bool]) -> tuple[int, int] | None:
    """The longest run of true values, as [start, stop); None where there is none."""
    best, start = None, None
    for place, value in enumerate([*low, False]):
        if value and start is None:
            start = place
        elif not value and start is not None:
            if best is None or place - start > best[1] - best[0]:
                best = (start, place)
            start = None
    return best
