"""Whatever is submitted, cancelled and broken in whatever order: what must always hold, holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from leaks import assert_nothing_left
from rig import Asked, assert_same_image, finish, rig

from diffusion_core.errors import CancelledError, ModelError, OutOfMemoryError
from diffusion_engine.call import Job, Ticket

CAP = 6

POOL = [
    Asked(steps=2, guidance=1.0),
    Asked(steps=3, seed=2, images=2),
    Asked(steps=4, seed=3, scheduler="HeunDiscreteScheduler", negative="rain"),
    Asked("image-to-image", steps=4, seed=4, scheduler="UniPCMultistepScheduler"),
    Asked("inpainting", steps=3, seed=5, strength=1.0),
    Asked(steps=2, seed=6, size=48, guidance=3.0),
    Asked(steps=2, seed=7, images=4),
    Asked(steps=3, seed=8, scheduler="EulerAncestralDiscreteScheduler"),
]

FAULTS: tuple[type[Exception], ...] = (ValueError, torch.OutOfMemoryError, MemoryError)


class EngineMachine(RuleBasedStateMachine):
    """Every run is another history of one engine, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = rig("sd")
        self.engine = self.stage.engine(CAP)
        self.asked: dict[Ticket, Asked] = {}
        self.bad: set[Ticket] = set()
        self.cancelled: set[Ticket] = set()
        self.ends: dict[Ticket, int] = {}
        self.faults: list[type[Exception]] = []
        self.faulted = False
        self.kept = self.stage.unet.forward
        self.stage.unet.forward = self.forward

    def forward(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        assert sample.shape[0] <= CAP
        if self.faults:
            self.faulted = True
            raise self.faults.pop()
        return self.kept(sample, *args, **kwargs)

    @rule(asked=st.sampled_from(POOL))
    def submit(self, asked: Asked) -> None:
        self._submit(self.stage.job(asked), asked)

    @rule(change=st.sampled_from([{"scheduler": "NoSuchScheduler"}, {"prompt": 3}]))
    def submit_a_bad_one(self, change: dict[str, Any]) -> None:
        job = self.stage.job(replace(POOL[0], **change))
        self.bad.add(self._submit(job, POOL[0]))

    def _submit(self, job: Job, asked: Asked) -> Ticket:
        ticket = self.engine.submit(job)
        self.asked[ticket] = asked
        self.ends[ticket] = 0
        ticket.future.add_done_callback(lambda _: self._count(ticket))
        return ticket

    def _count(self, ticket: Ticket) -> None:
        self.ends[ticket] += 1

    @rule(steps=st.integers(1, 8))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.engine.step()

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), by_future=st.booleans())
    def cancel(self, data: st.DataObject, by_future: bool) -> None:
        ticket = data.draw(st.sampled_from(list(self.asked)))
        self.cancelled.add(ticket)
        if by_future:
            ticket.future.cancel()
        else:
            self.engine.cancel(ticket)

    @rule(kind=st.sampled_from(FAULTS), times=st.integers(1, 4))
    def break_the_next_calls(self, kind: type[Exception], times: int) -> None:
        self.faults += [kind] * times

    @rule()
    def run_dry(self) -> None:
        finish(self.engine)
        self.check_the_ended()
        assert all(ticket.future.done() for ticket in self.asked)
        assert all(not kept._joined for kept in self.engine.served.rules.values() if kept)

    @invariant()
    def the_count_in_flight_is_right(self) -> None:
        unresolved = [ticket for ticket in self.asked if ticket.phase != "done"]
        assert self.engine.in_flight == len(unresolved)
        assert len(self.engine._calls) + len(self.engine._inbox) == len(unresolved)

    @invariant()
    def every_ticket_ends_at_most_once(self) -> None:
        for ticket, ends in self.ends.items():
            assert ends == int(ticket.future.done())

    @invariant()
    def the_batch_is_of_one_kind_and_fits(self) -> None:
        waiting = [
            call.waiting for call in self.engine._calls.values() if call.pending.kind == "denoise"
        ]
        picked = self.engine.policy.pick(waiting, 0.0)
        assert len({one.key for one in picked}) <= 1
        assert len(picked) <= 1 or sum(one.rows for one in picked) <= CAP
        assert bool(picked) == bool(waiting)

    def check_the_ended(self) -> None:
        for ticket, asked in self.asked.items():
            if not ticket.future.done() or ticket.future.cancelled():
                continue
            error = ticket.future.exception()
            if error is None:
                assert ticket not in self.bad
                assert_same_image(ticket.future.result().images, self.stage.solo(asked))
            elif isinstance(error, CancelledError):
                assert ticket in self.cancelled
            elif ticket not in self.bad:
                assert self.faulted
                assert isinstance(error, (ModelError, OutOfMemoryError))

    def teardown(self) -> None:
        self.faults.clear()
        finish(self.engine)
        self.check_the_ended()
        assert all(ticket.future.done() for ticket in self.asked)
        del self.stage.unet.forward
        assert_nothing_left(self.engine)


def _run(examples: int, steps: int) -> None:
    for asked in POOL:
        rig("sd").solo(asked)
    run_state_machine_as_test(
        EngineMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_any_history() -> None:
    _run(examples=12, steps=25)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_many_long_histories() -> None:
    _run(examples=200, steps=50)
