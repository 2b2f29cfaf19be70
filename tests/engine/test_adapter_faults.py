"""With adapters in play one request's fault is still its own, and a call can still be taken up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from adapter_rig import AdapterStage, Weights, adapter_stage
from leaks import assert_nothing_left
from rig import Asked, assert_same_image, error_of, finish, images_of, instead, rows_of_calls
from transformer_rig import Wanted

from diffusion_core.errors import (
    CancelledError,
    ConfigError,
    InvalidFieldError,
    ModelError,
    OutOfMemoryError,
)
from diffusion_engine.adapters import Adapter, LowRank
from diffusion_engine.call import Step, Ticket
from diffusion_engine.engine import StepEngine
from diffusion_engine.snapshot import Snapshot

CULPRIT: tuple[Asked, Weights] = (Asked(prompt="trouble", seed=9), {"everywhere": 1.0})
OTHERS: list[tuple[Asked, Weights]] = [
    (Asked(seed=1), {"attention": 1.0}),
    (Asked(seed=2, steps=6, guidance=1.0), None),
    (Asked(seed=3, images=2), {"everywhere": 0.5, "wide": 1.0}),
]
COMPANY = [OTHERS[0], CULPRIT, *OTHERS[1:]]


@pytest.fixture
def stage() -> AdapterStage:
    return adapter_stage("sd")


def submit(stage: AdapterStage, engine: StepEngine) -> list[Ticket]:
    return [engine.submit(stage.job(*one)) for one in COMPANY]


def assert_only_the_culprit_failed(
    stage: AdapterStage, tickets: list[Ticket], kind: type[Exception]
) -> None:
    for one, ticket in zip(COMPANY, tickets, strict=True):
        if one is CULPRIT:
            assert isinstance(error_of(ticket), kind)
        else:
            assert_same_image(images_of(ticket), stage.solo(*one))


def test_values_that_are_not_numbers_stay_in_their_row(stage: AdapterStage) -> None:
    """Not even the other rows' products with the culprit's adapter see them."""

    def nan(original: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        rows = sample.shape[0]
        if rows > 2:
            sample = sample.clone()
            sample[2:4] = torch.nan
        return original(sample, *args, **kwargs)

    engine = stage.engine()
    with instead(stage.rig.unet, "forward", nan):
        tickets = submit(stage, engine)
        finish(engine)
    assert_only_the_culprit_failed(stage, tickets, ModelError)


def test_an_adapter_that_overflows_is_its_requests_alone(stage: AdapterStage) -> None:
    engine = stage.engine()
    kept = stage.adapters["everywhere"].layers["unet"]
    loud = {name: LowRank(low.down * 1e30, low.up * 1e30, 1.0) for name, low in kept.items()}
    engine.served.adapters.add("loud", Adapter({"unet": loud}))
    tickets = [
        engine.submit(stage.job(asked, {"loud": 1.0} if asked is CULPRIT[0] else weights))
        for asked, weights in COMPANY
    ]
    finish(engine)
    assert_only_the_culprit_failed(stage, tickets, ModelError)


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
def test_a_call_that_fails_with_one_request(stage: AdapterStage, kind: type[Exception]) -> None:
    """Alone, in halves or row by row, every row keeps its own adapters."""
    embedding, _ = stage.rig.bare["text-to-image"].encode_prompt("trouble", "cpu", 1, False)

    def fault(original: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        states = kwargs["encoder_hidden_states"]
        if (states == embedding).flatten(1).all(dim=1).any():
            raise kind("boom")
        return original(sample, *args, **kwargs)

    culprit = (CULPRIT[0], {"attention": 1.0})
    company = [OTHERS[0], culprit, *OTHERS[1:]]
    engine = stage.engine()
    # Of other tests, whose hooks leave the forward that they found in the module itself.
    shadowed = shadows(stage)
    with instead(stage.rig.unet, "forward", fault):
        tickets = [engine.submit(stage.job(*one)) for one in company]
        finish(engine)
    expected = OutOfMemoryError if kind is torch.OutOfMemoryError else ModelError
    assert isinstance(error_of(tickets[1]), expected)
    for one, ticket in zip(OTHERS, [tickets[0], *tickets[2:]], strict=True):
        assert_same_image(images_of(ticket), stage.solo(*one))
    assert engine.forward.counts.splits > 0
    assert shadows(stage) == shadowed


def shadows(stage: AdapterStage) -> dict[str, Any]:
    """Layers of the UNet whose forward is not their class's."""
    return {
        name: vars(module)["forward"]
        for name, module in stage.rig.unet.named_modules()
        if name and "forward" in vars(module)
    }


def test_too_large_for_memory_is_drawn_in_parts(stage: AdapterStage) -> None:
    def most_three(original: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        if sample.shape[0] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return original(sample, *args, **kwargs)

    engine = stage.engine()
    one: tuple[Asked, Weights] = (Asked(seed=5, images=3), {"everywhere": 1.0, "wide": -0.5})
    with instead(stage.rig.unet, "forward", most_three):
        drawn = stage.draw(engine, one, OTHERS[1])
    for images, wanted in zip(drawn, (one, OTHERS[1]), strict=True):
        assert_same_image(images, stage.solo(*wanted))


def test_cancelled_while_others_go_on(stage: AdapterStage) -> None:
    engine = stage.engine()
    tickets = submit(stage, engine)
    for _ in range(8):
        engine.step()
    engine.cancel(tickets[1])
    finish(engine)
    assert_only_the_culprit_failed(stage, tickets, CancelledError)


def test_nothing_is_kept_at_rest(stage: AdapterStage) -> None:
    engine = stage.engine()
    stage.draw(engine, *COMPANY)
    assert not engine.step()
    assert_nothing_left(engine)
    assert not engine.served.adapters._kept


def test_loaded_while_requests_are_in_flight(stage: AdapterStage) -> None:
    """Between two steps: nobody's picture changes, and the next request has the new one."""
    engine = stage.engine(names=["attention"])
    before = [(Asked(seed=1, steps=6), {"attention": 1.0}), (Asked(seed=2, steps=6), None)]
    tickets = [engine.submit(stage.job(*one)) for one in before]
    for _ in range(6):
        engine.step()
    assert not any(ticket.future.done() for ticket in tickets)
    for name in ("everywhere", "wide", "words"):
        engine.served.adapters.add(name, stage.adapters[name])
    after = (Asked(seed=3), {"everywhere": 0.8, "wide": 0.4})
    with rows_of_calls(stage.rig) as rows:
        tickets.append(engine.submit(stage.job(*after)))
        finish(engine)
    assert max(rows) == 6
    for one, ticket in zip([*before, after], tickets, strict=True):
        assert_same_image(images_of(ticket), stage.solo(*one))


def test_what_does_not_fit_changes_nothing(stage: AdapterStage) -> None:
    engine = stage.engine()
    bank, (place, low) = (
        engine.served.adapters,
        next(iter(stage.adapters["attention"].layers["unet"].items())),
    )
    names = bank.names
    broken = replace(low, up=low.up.clone().fill_(torch.nan))
    refused = {
        "no layer unet.nowhere.to_q": Adapter({"unet": {place: low, "nowhere.to_q": low}}),
        "no layer controlnet": Adapter({"controlnet": {place: low}}),
        "another shape": Adapter({"unet": {place: replace(low, up=low.up[:3])}}),
        "not finite": Adapter({"unet": {place: broken}}),
        "no low-rank weights": Adapter({"unet": {"conv_norm_out": low}}),
        "no weights": Adapter({}),
    }
    for reason, adapter in refused.items():
        with pytest.raises(ConfigError, match=reason.replace("no weights", "holds no weights")):
            bank.add("new", adapter)
    with pytest.raises(ConfigError, match="there already"):
        bank.add("attention", stage.adapters["attention"])
    assert bank.names == names
    assert_same_image(stage.draw(engine, OTHERS[0])[0], stage.solo(*OTHERS[0]))


def test_an_unknown_name_ends_its_request_alone(stage: AdapterStage) -> None:
    engine = stage.engine(names=["attention"])
    ticket = engine.submit(stage.job(Asked(), {"secret": 1.0}))
    other = engine.submit(stage.job(*OTHERS[0]))
    finish(engine)
    error = error_of(ticket)
    assert isinstance(error, InvalidFieldError)
    assert "attention" in error.message
    assert "secret" not in error.message
    assert_same_image(images_of(other), stage.solo(*OTHERS[0]))


def snapshot_at(stage: AdapterStage, step: int, one: tuple[Asked, Weights], **how: Any) -> Snapshot:
    kept: list[Snapshot] = []

    def on_step(now: Step) -> None:
        if now.done == step:
            kept.append(now.snapshot())

    engine = stage.engine(**how)
    for other in OTHERS:
        engine.submit(stage.job(*other))
    engine.submit(stage.job(*one, on_step=on_step))
    finish(engine)
    return kept[0]


def test_fixed_batches_draw_the_same_bits_in_any_company_and_after_a_resume(
    stage: AdapterStage,
) -> None:
    shape = {"cap": 4, "fixed_batch": True}
    for one in (CULPRIT, (replace(CULPRIT[0], seed=10), None), OTHERS[2]):
        (alone,) = stage.draw(stage.engine(**shape), one)
        assert_same_image(alone, stage.solo(*one))
        together = stage.draw(stage.engine(**shape), *OTHERS, one)
        assert torch.equal(together[-1], alone)
    (alone,) = stage.draw(stage.engine(**shape), CULPRIT)
    snapshot = snapshot_at(stage, 2, CULPRIT, **shape)
    engine = stage.engine(**shape)
    ticket = engine.submit(stage.job(*CULPRIT, resume=snapshot))
    for other in OTHERS[1:]:
        engine.submit(stage.job(*other))
    finish(engine)
    assert torch.equal(images_of(ticket), alone)


@contextmanager
def rows_laid_end_to_end(module: torch.nn.Module) -> Iterator[None]:
    """Within, the layer is called with all rows as one, as some pipelines call some of theirs."""
    rows: list[int] = []

    def before(_module: Any, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        rows.append(arguments[0].shape[0])
        return (arguments[0].reshape(1, -1, arguments[0].shape[-1]),)

    def after(_module: Any, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return output.reshape(rows.pop(), -1, output.shape[-1])

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_layer_that_does_not_see_rows_keeps_blends_apart(
    stage: AdapterStage, fixed: bool
) -> None:
    wanted: list[tuple[Asked, Weights]] = [
        (Asked(seed=1), {"attention": 1.0}),
        (Asked(seed=2), {"attention": 0.5}),
        (Asked(seed=3), {"attention": 1.0}),
    ]
    expected = [stage.solo(*one) for one in wanted]
    engine = stage.engine(cap=6, fixed_batch=fixed)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    with rows_laid_end_to_end(stage.rig.unet.get_submodule(layer)):
        drawn = stage.draw(engine, *wanted)
    for images, own in zip(drawn, expected, strict=True):
        assert_same_image(images, own)
    # The first call, of all three, was answered one by one; then two shared and one was alone.
    assert engine.forward.counts.batches == {3: 1, 2: 3, 1: 3}


TRANSFORMERS: list[tuple[Wanted, Weights]] = [
    (Wanted(prompt="a cat", seed=1), {"attention": 1.0}),
    (Wanted(prompt="a dog", seed=2, images=2), None),
    (Wanted(prompt="two dogs", seed=3, guidance=2.0), {"everywhere": 0.7, "wide": -0.8}),
]


@pytest.mark.parametrize(
    "family",
    [
        "flux-dev",
        *(pytest.param(name, marks=pytest.mark.full) for name in ("sd3", "qwen-image", "z-image")),
    ],
)
def test_transformers(family: str) -> None:
    stage = adapter_stage(family)
    engine = stage.engine()
    wanted = [(one, weights) for one, weights in TRANSFORMERS]
    drawn = stage.draw(engine, *wanted)
    for one, images in zip(wanted, drawn, strict=True):
        assert_same_image(images, stage.solo(*one))
    assert max(engine.forward.counts.batches) == len(wanted)
    assert engine.forward.counts.splits == 0
