"""`offload: model`: one phase's models are on the device at once, whatever requests are in flight.

There is no GPU here: accelerate's own hooks move models from the CPU to the CPU, and which are on
the device is told from the hooks' calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rig import Asked, Rig, assert_same_image, finish, images_of

from diffusion_engine.profiling import Task, measure
from tiny import tiny_stable_diffusion_xl

ENCODERS = ["text_encoder", "text_encoder_2"]


class Residents:
    """The models that are on the device, by the hooks' calls.

    Attributes:
        arrived: the models that were moved in, in order.
        most: how many there were at once.
    """

    def __init__(self, pipeline: Any) -> None:
        self.there: set[str] = set()
        self.arrived: list[str] = []
        self.most = 0
        self._names = {id(model): name for name, model in pipeline.components.items()}
        for one in pipeline._all_hooks:
            one.hook.pre_forward = self._moving_in(one.hook.pre_forward)
            one.hook.init_hook = self._moving_off(one.hook.init_hook)

    def _moving_in(self, pre_forward: Callable[..., Any]) -> Callable[..., Any]:
        previous = pre_forward.__self__.prev_module_hook  # type: ignore[attr-defined]

        def move(model: Any, *args: Any, **kwargs: Any) -> Any:
            name = self._names[id(model)]
            if previous is not None:
                # What accelerate does on a device: from the CPU there is nothing to move off.
                self.there.discard(self._names[id(previous.model)])
            if name not in self.there:
                self.there.add(name)
                self.arrived.append(name)
            self.most = max(self.most, len(self.there))
            return pre_forward(model, *args, **kwargs)

        return move

    def _moving_off(self, init_hook: Callable[..., Any]) -> Callable[..., Any]:
        def move(model: Any) -> Any:
            self.there.discard(self._names[id(model)])
            return init_hook(model)

        return move


@pytest.fixture(scope="module")
def stage() -> Rig:
    return Rig(tiny_stable_diffusion_xl)


@pytest.fixture
def residents(stage: Rig) -> Residents:
    pipeline = stage.tasks["text-to-image"]
    # As the loader does on a GPU; it takes the hooks of an earlier test away.
    pipeline.enable_model_cpu_offload(device="cpu")
    return Residents(pipeline)


def test_one_request_moves_each_model_in_once(stage: Rig, residents: Residents) -> None:
    asked = Asked()
    assert_same_image(stage.draw(stage.engine(), asked)[0], stage.solo(asked))
    assert residents.arrived == [*ENCODERS, "unet", "vae"]
    assert residents.most == 1
    assert residents.there == set()


def test_a_request_that_comes_while_another_is_denoised(stage: Rig, residents: Residents) -> None:
    first, second = Asked(steps=8), Asked("image-to-image", "a boat", steps=6, seed=3)
    engine = stage.engine()
    tickets = [engine.submit(stage.job(first))]
    while tickets[0].steps_done < 3:
        assert engine.step()
    tickets.append(engine.submit(stage.job(second)))
    finish(engine)
    for asked, ticket in zip((first, second), tickets, strict=True):
        assert_same_image(images_of(ticket), stage.solo(asked))
    assert residents.most == 1
    assert residents.there == set()
    # A model that is there is not moved at each step.
    assert residents.arrived.count("unet") <= 4


def test_what_is_measured_leaves_nothing_behind(stage: Rig, residents: Residents) -> None:
    measure(stage.engine().served, Task(stage.job(Asked()), limit=1))
    assert residents.arrived == [*ENCODERS, "unet"]
    assert residents.there == set()
