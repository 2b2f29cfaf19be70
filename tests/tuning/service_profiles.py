"""A service profile of round figures: what a simulation of it must come to can be told by hand."""

from __future__ import annotations

from typing import Any

from diffusion_core.profile import StepCurve
from diffusion_costs.tuning.measured import Layout, Overhead, Parts, ServiceProfile

START, ENCODE, DECODE, IMAGE = 0.001, 0.002, 0.004, 0.003
STEPS, ROWS = 10, 2


def step_seconds(rows: int) -> float:
    """A second of a step's hundredths for any call, and one more for each row."""
    return 0.01 + 0.01 * rows


def curve(slower: float = 1.0) -> StepCurve:
    seconds = {rows: slower * step_seconds(rows) for rows in (2, 4, 8, 16)}
    return StepCurve(seconds=seconds, unit=ROWS, limit=16, stopped="limit")


def parts(slower: float = 1.0) -> Parts:
    return Parts(
        start=START,
        encode=ENCODE,
        decode=DECODE,
        image=IMAGE,
        step=curve(slower),
        denoiser=curve(slower),
    )


CONDITIONS: dict[str, Any] = {
    "archive": "a" * 64,
    "libraries": {"torch": "2.13.0"},
    "dtype": "float32",
    "offload": "none",
    "device": "a processor",
}


def service(workers: int = 1, *, slower: float = 1.8, request: float = 0.0) -> ServiceProfile:
    """Workers that each take `slower` times as long when two are at work."""
    layouts = [Layout(workers=1, threads=2, busy={1: {"64x64": parts()}})]
    if workers == 2:
        busy = {1: {"64x64": parts()}, 2: {"64x64": parts(slower)}}
        layouts.append(Layout(workers=2, threads=1, busy=busy))
    return ServiceProfile(
        conditions=CONDITIONS,
        measured="2026-11-22",
        rows=ROWS,
        steps=STEPS,
        shape="64x64",
        layouts=tuple(layouts),
        overheads=(
            Overhead(mode="classic", workers=1, request=request),
            Overhead(mode="continuous", workers=1, request=request),
        ),
    )
