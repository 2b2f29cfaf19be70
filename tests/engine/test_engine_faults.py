"""Promise 2: one request's fault is its own. The others in the batch notice nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from leaks import assert_nothing_left
from rig import (
    Asked,
    Rig,
    assert_only_failed,
    assert_same_image,
    error_of,
    finish,
    images_of,
    instead,
    rig,
)

from diffusion_core.errors import (
    DeadlineError,
    InvalidFieldError,
    ModelError,
    OutOfMemoryError,
    OverloadedError,
)
from diffusion_engine.call import Job, Ticket
from diffusion_engine.engine import StepEngine
from diffusion_engine.faults import DeviceFaultError, classify

CULPRIT = Asked(prompt="trouble", steps=5, seed=9)
OTHERS = [
    Asked(steps=4),
    Asked("inpainting", "a boat", steps=6, scheduler="HeunDiscreteScheduler", seed=3),
    Asked(guidance=1.0, steps=7, scheduler="EulerAncestralDiscreteScheduler", images=2),
]
COMPANY = [OTHERS[0], CULPRIT, *OTHERS[1:]]


@pytest.fixture
def stage() -> Rig:
    return rig("sd")


def in_rows_of(
    stage: Rig, prompt: str, fault: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> AbstractContextManager[None]:
    """Within, calls that hold rows of `prompt` answer `fault(noise, which rows)`."""
    embedding, _ = stage.bare["text-to-image"].encode_prompt(prompt, "cpu", 1, False)

    def forward(original: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        (noise,) = original(sample, *args, **kwargs)
        rows = (kwargs["encoder_hidden_states"] == embedding).flatten(1).all(dim=1)
        return (fault(noise, rows) if rows.any() else noise,)

    return instead(stage.unet, "forward", forward)


def raising(kind: type[Exception], *arguments: str) -> Callable[..., Any]:
    def fault(*_: Any, **__: Any) -> Any:
        raise kind(*arguments)

    return fault


def submit(stage: Rig, engine: StepEngine, company: list[Asked]) -> list[Ticket]:
    return [engine.submit(stage.job(asked)) for asked in company]


def test_values_that_are_not_numbers(stage: Rig) -> None:
    def nan(noise: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.where(rows[:, None, None, None], torch.nan, noise)

    engine = stage.engine()
    with in_rows_of(stage, CULPRIT.prompt, nan):
        tickets = submit(stage, engine, COMPANY)
        finish(engine)
    assert_only_failed(stage, COMPANY, tickets, CULPRIT, ModelError)
    assert_nothing_left(engine)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError, ModelError),
        (torch.OutOfMemoryError, OutOfMemoryError),
        (MemoryError, OutOfMemoryError),
    ],
    ids=["error", "device memory", "memory"],
)
def test_a_model_that_raises_for_one_of_them(
    stage: Rig, error: type[Exception], kind: type[Exception]
) -> None:
    engine = stage.engine()
    with in_rows_of(stage, CULPRIT.prompt, raising(error)):
        tickets = submit(stage, engine, COMPANY)
        finish(engine)
    assert_only_failed(stage, COMPANY, tickets, CULPRIT, kind)
    assert engine.forward.counts.splits > 0
    assert_nothing_left(engine)


def test_a_call_of_eight_rows_that_does_not_fit_is_split_and_tried_again(stage: Rig) -> None:
    tried: list[int] = []

    def limited(original: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        tried.append(sample.shape[0])
        if sample.shape[0] >= 8:
            raise torch.OutOfMemoryError
        return original(sample, *args, **kwargs)

    engine = stage.engine(cap=8)
    company = [Asked(seed=seed, steps=2) for seed in range(4)]
    with instead(stage.unet, "forward", limited):
        drawn = stage.draw(engine, *company)
    assert tried == [8, 4, 4] * 2
    for asked, images in zip(company, drawn, strict=True):
        assert_same_image(images, stage.solo(asked))


class Third:
    """A scheduler's step that raises the third time it is called."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        self.steps_taken = getattr(self, "steps_taken", 0) + 1
        if self.steps_taken == 3:
            raise IndexError("index 3 is out of bounds")
        return super().step(*args, **kwargs)  # type: ignore[misc]


def job_with_scheduler(stage: Rig, engine: StepEngine, asked: Asked, mixin: type) -> Job:
    """The request with `mixin` over the pipeline's own scheduler class."""
    own = type(stage.bare["text-to-image"].scheduler)
    engine.served.schedulers._classes[mixin.__name__] = type(mixin.__name__, (mixin, own), {})
    job = stage.job(asked)
    return Job(job.task, job.arguments, mixin.__name__, job.rows, job.steps)


def test_a_scheduler_that_raises_at_its_third_step(
    stage: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    engine = stage.engine()
    others = submit(stage, engine, OTHERS)
    ticket = engine.submit(job_with_scheduler(stage, engine, CULPRIT, Third))
    finish(engine)
    assert str(error_of(ticket)) == "the pipeline raised IndexError"
    assert ticket.steps_done == 2
    for asked, other in zip(OTHERS, others, strict=True):
        assert_same_image(images_of(other), stage.solo(asked))
    # Where it happened is in the log; what was asked for is not.
    assert "in step" in caplog.text
    assert CULPRIT.prompt not in caplog.text
    assert_nothing_left(engine)


class Uncopied:
    def __deepcopy__(self, _memo: Any) -> Any:
        raise RuntimeError("cannot be copied")


@pytest.mark.parametrize("name", ["NoSuchScheduler", "Uncopied"])
def test_an_exception_at_admission_is_the_request_s_own(stage: Rig, name: str) -> None:
    engine = stage.engine()
    others = submit(stage, engine, OTHERS[:1])
    broken = job_with_scheduler(stage, engine, CULPRIT, Uncopied)
    bad = engine.submit(Job(broken.task, broken.arguments, name))
    others += submit(stage, engine, OTHERS[1:])
    finish(engine)
    expected = InvalidFieldError if name == "NoSuchScheduler" else ModelError
    assert isinstance(error_of(bad), expected)
    for asked, other in zip(OTHERS, others, strict=True):
        assert_same_image(images_of(other), stage.solo(asked))
    assert engine.in_flight == 0


@pytest.mark.parametrize(
    "arguments",
    [{"prompt": 3}, {"output_type": "np"}, {"output_type": "latent"}],
    ids=str,
)
def test_arguments_the_pipeline_or_the_engine_cannot_use(
    stage: Rig, arguments: dict[str, Any]
) -> None:
    engine = stage.engine()
    job = stage.job(CULPRIT)
    bad = engine.submit(Job(job.task, {**job.arguments, **arguments}))
    good = engine.submit(stage.job(OTHERS[0]))
    finish(engine)
    if arguments != {"output_type": "latent"}:
        assert isinstance(error_of(bad), ModelError)
    assert_same_image(images_of(good), stage.solo(OTHERS[0]))


def test_a_pipeline_that_raises_as_it_is_aborted_harms_nobody(
    stage: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    engine = stage.engine()
    job = stage.job(CULPRIT)
    pipeline_class = engine.served._templates["text-to-image", None]._class
    unwilling = type("Unwilling", (pipeline_class,), {"__call__": raising_when_aborted})
    engine.served._templates["text-to-image", None]._class = unwilling
    ticket = engine.submit(Job(job.task, job.arguments))
    engine.step()
    engine.served._templates["text-to-image", None]._class = pipeline_class
    mate = engine.submit(stage.job(OTHERS[0]))
    engine.step()
    engine.cancel(ticket)
    finish(engine)
    assert "cancelled" in str(error_of(ticket))
    assert "KeyError" in caplog.text
    assert_same_image(images_of(mate), stage.solo(OTHERS[0]))
    assert_nothing_left(engine)


def raising_when_aborted(pipeline: Any, **arguments: Any) -> Any:
    try:
        return super(type(pipeline), pipeline).__call__(**arguments)
    finally:
        raise KeyError(arguments["prompt"])


def test_time_limits(stage: Rig) -> None:
    now = [0.0]
    engine = stage.engine(clock=lambda: now[0])
    hasty = engine.submit(stage.job(CULPRIT, timeout_s=5))
    calm = engine.submit(stage.job(OTHERS[0], timeout_s=100))
    for _ in range(5):
        assert engine.step()
    now[0] = 6.0
    finish(engine)
    assert isinstance(error_of(hasty), DeadlineError)
    assert_same_image(images_of(calm), stage.solo(OTHERS[0]))
    assert_nothing_left(engine)


def test_a_clock_that_jumps_back_and_forth(stage: Rig) -> None:
    jumps = iter([0.0, 50.0, -1e6, 1e6, 3.0, -20.0] * 1000)
    engine = stage.engine(clock=lambda: next(jumps))
    company = [*OTHERS, CULPRIT]
    tickets = submit(stage, engine, company)
    finish(engine)
    for asked, ticket in zip(company, tickets, strict=True):
        assert_same_image(images_of(ticket), stage.solo(asked))
        assert ticket.device_seconds >= 0
        assert min(ticket.timings.values()) >= 0
    assert engine.forward.counts.seconds >= 0


def test_more_than_max_waiting_are_refused_until_one_ends(stage: Rig) -> None:
    engine = stage.engine(max_waiting=2)
    first, _ = submit(stage, engine, OTHERS[:2])
    with pytest.raises(OverloadedError):
        engine.submit(stage.job(CULPRIT))
    engine.cancel(first)
    engine.step()
    ticket = engine.submit(stage.job(CULPRIT))
    finish(engine)
    assert_same_image(images_of(ticket), stage.solo(CULPRIT))


STICKY = "CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize("error", [ValueError(STICKY), KeyError(STICKY), TypeError(STICKY)])
def test_a_prompt_that_speaks_of_cuda_is_no_lost_device(error: Exception) -> None:
    assert classify(error) == "request"
    assert classify(RuntimeError(STICKY)) == "device"


def test_a_lost_device_ends_all_and_is_told(stage: Rig, caplog: pytest.LogCaptureFixture) -> None:
    told: list[BaseException] = []
    engine = stage.engine(on_device_fault=told.append)
    with instead(stage.unet, "forward", raising(RuntimeError, STICKY)):
        tickets = submit(stage, engine, COMPANY)
        engine.start()
        errors = [ticket.future.exception(timeout=60) for ticket in tickets]
        engine.close()
    assert all(isinstance(error, ModelError) for error in errors)
    assert [type(error) for error in told] == [DeviceFaultError]
    with pytest.raises(OverloadedError):
        engine.submit(stage.job(CULPRIT))
    assert engine.in_flight == 0
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_a_failed_request_s_error_holds_none_of_its_tensors(stage: Rig) -> None:
    engine = stage.engine()
    with in_rows_of(stage, CULPRIT.prompt, raising(ValueError)):
        (ticket,) = submit(stage, engine, [CULPRIT])
        finish(engine)
    error = error_of(ticket)
    assert error.__traceback__ is None
    assert error.__context__ is None
    assert_nothing_left(engine)
