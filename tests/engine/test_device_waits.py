"""Times are of work that has ended, and memory is given back, on every kind of GPU.

There is no GPU here: torch's own functions for one are replaced by ones that count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rig import Asked, Rig, assert_same_image, instead, rig

from diffusion_engine.profiling import Task, measure

ASKED = Asked(steps=2)


@pytest.fixture
def stage() -> Rig:
    return rig("sd")


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often torch was asked, by function."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., None]:
        return lambda *_: counted.update([name])

    for backend in ("cuda", "mps"):
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(getattr(torch, backend), name, counting(f"{backend}.{name}"))
    return counted


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_model_call_ends_when_its_device_is_done(
    stage: Rig, counts: Counter[str], kind: str
) -> None:
    engine = stage.engine()
    engine.served.device = torch.device(kind)
    (images,) = stage.draw(engine, ASKED)
    assert_same_image(images, stage.solo(ASKED))
    kinds = engine.forward.counts
    calls = kinds.denoiser_calls + kinds.encoder_calls + kinds.decoder_calls
    assert counts == {f"{kind}.synchronize": calls}


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_rows_that_do_not_fit_give_back_what_torch_keeps(
    stage: Rig, counts: Counter[str], kind: str
) -> None:
    def small(original: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if sample.shape[0] > 1:
            raise torch.OutOfMemoryError("out of memory")
        return original(sample, *args, **kwargs)

    engine = stage.engine()
    engine.served.device = torch.device(kind)
    with instead(stage.unet, "forward", small):
        (images,) = stage.draw(engine, ASKED)
    assert_same_image(images, stage.solo(ASKED))
    assert counts[f"{kind}.empty_cache"] == ASKED.steps


def test_t_b_is_of_calls_that_have_ended(stage: Rig, counts: Counter[str]) -> None:
    served = stage.engine().served
    served.device = torch.device("mps")
    seen: list[int] = []

    def noting(original: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(counts["mps.synchronize"])
        return original(*args, **kwargs)

    with instead(stage.unet, "forward", noting):
        measure(served, Task(stage.job(ASKED), limit=1))
    # Once before each call, and once after it.
    assert seen == list(range(1, 2 * len(seen), 2))
    assert counts == {"mps.synchronize": 2 * len(seen)}
