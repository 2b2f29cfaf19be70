"""Parts are timed on a real pipeline, and its operations counted: how often, not how long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from choosing.counting import count
from diffusion_core.model_config import read_model_config
from diffusion_core.profile import Shape, StepCurve
from diffusion_engine.service import DiffusionService
from tiny import tiny_stable_diffusion
from tuning.layouts import mean_curve
from tuning.parts import measure_parts
from unpacked import unpack

SHAPE = Shape(16, 16)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionService]:
    folder = unpack(tmp_path_factory.mktemp("archive"), tiny_stable_diffusion())
    opened = DiffusionService(folder, read_model_config(folder / "model-config.yaml"))
    yield opened
    opened.close()


def test_every_part_is_timed_up_to_the_cap(service: DiffusionService) -> None:
    ticks = itertools.count()
    parts = measure_parts(service, SHAPE, 8, lambda: float(next(ticks)))
    # With a clock that ticks when it is read every call takes one tick, so larger batches win.
    assert parts.denoiser.cap == 8
    assert list(parts.step.seconds) == [2, 4, 6, 8]
    assert parts.step.unit == 2
    assert min(parts.decode, parts.image) > 0


def test_larger_batches_do_more_and_read_the_weights_once(service: DiffusionService) -> None:
    counted = count(service, SHAPE, {"archive": "a"})
    flops = {rows: sum(one.flops for one in of) for rows, of in counted.denoiser.items()}
    moved = {rows: sum(one.bytes for one in of) for rows, of in counted.denoiser.items()}
    assert list(flops) == [2, 4, 8, 16, 32, 64]
    assert flops[64] == pytest.approx(32 * flops[2])
    assert moved[64] < 32 * moved[2]
    assert sum(one.flops for one in counted.decode) > 0
    assert counted.weights_gb > 0
    assert (counted.rows, counted.steps) == (2, 3)


def test_the_mean_of_two_workers_has_a_cap_of_its_own() -> None:
    first, second = (
        StepCurve(seconds=seconds, limit=4, stopped="limit")
        for seconds in ({1: 1.0, 2: 1.1, 4: 1.2}, {1: 1.0, 2: 2.1})
    )
    assert (first.cap, second.cap) == (4, 1)
    both = mean_curve([first, second])
    assert both.seconds == {1: 1.0, 2: 1.6}
    assert both.cap == 2
