"""Which models of a device sleep and which are awake. Pure: times and memory come from outside.

A model that loads keeps the device from drawing, so models that are wanted in turn must not push
each other out again and again. One that is awake stays until it has done nothing for as long as it
took to load, or until it has been there for `TURN` times as long while another one waits: at most
one part in `TURN` + 1 of the time goes into loading, and all that waits for a model is drawn in one
turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

TURN = 4.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A registration on a device. Times in seconds on one clock.

    Attributes:
        model: the model whose jobs it draws.
        memory_mb: what its workers take; None where that was never measured.
        awake: whether it has workers, or they load.
        ready: whether they have loaded.
        in_hand: jobs that it draws.
        waiting: jobs of its model that wait; `since` is when the oldest came.
        served: whether its model is awake on any device.
        places: jobs of its model that can be in hand at once, on all devices.
        active: when its model last had a job.
        woke: when it was last ready for the first time.
        wake_s: how long loading takes; 0 where that was never measured.
    """

    name: str
    model: str
    memory_mb: int | None = None
    awake: bool = False
    ready: bool = False
    in_hand: int = 0
    waiting: int = 0
    since: float = inf
    served: bool = False
    places: int = 0
    active: float = -inf
    woke: float = -inf
    wake_s: float = 0.0

    @property
    def wanted(self) -> bool:
        """Whether jobs wait for want of a worker."""
        return not self.awake and self.waiting > 0 and not self.served

    @property
    def helpful(self) -> bool:
        """Whether more jobs wait than those that are awake can take."""
        return not self.awake and self.served and self.waiting > self.places

    def idle(self, now: float) -> bool:
        """Whether nobody misses it: nothing to do for as long as it takes to load."""
        return not (self.in_hand or self.waiting) and now - self.active >= self.wake_s

    def done(self, now: float) -> bool:
        """Whether it has had its turn."""
        return now - self.woke >= TURN * self.wake_s


@dataclass(slots=True)
class Plan:
    """Names to wake, to put to sleep, and to give nothing new so that they can sleep."""

    wake: list[str] = field(default_factory=list)
    sleep: list[str] = field(default_factory=list)
    hold: list[str] = field(default_factory=list)


def plan(
    residents: Sequence[Resident], now: float, *, idle_after_s: float, budget_mb: int | None
) -> Plan:
    """What to do on one device now.

    Args:
        idle_after_s: a model without jobs for so long sleeps; 0: only for others that need room.
        budget_mb: what all that are awake may take together; None: no bound.
    """
    made = Plan()
    free = inf if budget_mb is None else budget_mb - _memory(residents, budget_mb)
    for one in residents:
        if idle_after_s and _rests(one, now, idle_after_s):
            made.sleep.append(one.name)
    wanted = sorted((one for one in residents if one.wanted), key=lambda one: one.since)
    for one in (*wanted, *(one for one in residents if one.helpful)):
        need = _need(one, budget_mb)
        if need <= free:
            made.wake.append(one.name)
            free -= need
        elif one.wanted:
            # Whoever waits longest gets the room; others that would fit must not take it.
            _make_room(made, residents, need - free, now, wanted=one)
            return made
    if budget_mb is not None:
        # Models that were awake together before there was a budget, or that grew.
        taken = sum(min(one.memory_mb or 0, budget_mb) for one in residents if one.awake)
        if taken > budget_mb:
            _make_room(made, residents, taken - budget_mb, now)
    return made


def _make_room(
    made: Plan,
    residents: Sequence[Resident],
    missing: float,
    now: float,
    wanted: Resident | None = None,
) -> None:
    """Puts away those that are missed least until there is room; nothing if there cannot be."""
    model = wanted and wanted.model
    awake = [one for one in residents if one.awake and one.model != model]
    idle = sorted((one for one in awake if one.idle(now)), key=lambda one: one.active)
    served = sorted(
        (one for one in awake if not one.idle(now) and one.done(now)), key=lambda one: one.woke
    )
    chosen: list[Resident] = []
    for one in (*idle, *served):
        if missing <= 0:
            break
        if one.ready:
            chosen.append(one)
            missing -= one.memory_mb or 0
    alone = len(chosen) == len(awake)
    if missing > 0 and not alone:
        return
    for one in chosen:
        if one.name not in made.sleep:
            (made.hold if one.in_hand else made.sleep).append(one.name)


def _rests(one: Resident, now: float, idle_after_s: float) -> bool:
    return (
        one.ready
        and one.idle(now)
        and now - max(one.active, one.woke) >= max(idle_after_s, one.wake_s)
    )


def _memory(residents: Sequence[Resident], budget_mb: int) -> int:
    return sum(_need(one, budget_mb) for one in residents if one.awake)


def _need(one: Resident, budget_mb: int | None) -> int:
    """Memory to keep for it: all there is where it was never measured, or takes more than that."""
    if budget_mb is None:
        return 0
    return budget_mb if one.memory_mb is None else min(one.memory_mb, budget_mb)
