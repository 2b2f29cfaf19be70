"""A day on machines that may be taken away: who asks for what, and when machines go and come."""

from __future__ import annotations

import random
from dataclasses import dataclass

from scheduling.workloads import MIX, bursts

DAY_S = 86_400.0

URGENT_PART = 0.2
"""Requests that somebody waits for."""

URGENT_DEADLINE_S, PATIENT_DEADLINE_S = 60.0, 1200.0

LIFE_S = 2 * 3600.0
"""How long a spot machine stays on average."""

AWAY_S = (120.0, 300.0)
"""A machine in its place comes within so long: 2 to 5 minutes."""

RECLAIMS = 3
"""Times a day when all spot machines go within a minute and none comes for `DROUGHT_S`."""

DROUGHT_S = 1200.0

NOTICE_S = 120.0
UNTOLD_PART = 0.2
"""Machines that are gone without a notice that came in time."""


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to draw. Times in seconds; `deadline` is when it is of use no more."""

    time: float
    steps: int
    urgent: bool

    @property
    def deadline(self) -> float:
        """The moment after which it is late."""
        return self.time + (URGENT_DEADLINE_S if self.urgent else PATIENT_DEADLINE_S)


@dataclass(frozen=True, slots=True)
class Absence:
    """A spot machine is told at `notice` that it goes, goes at `gone` (without a notice both are
    one moment), and another one is in its place at `back`."""

    machine: int
    notice: float
    gone: float
    back: float


def requests(seed: int, load: float, machines: int, step_seconds: float) -> list[Request]:
    """A day's requests in bursts, at `load` of what so many machines can draw."""
    draw = random.Random(f"{seed} requests")
    rate = load * machines / (step_seconds * sum(MIX) / len(MIX))
    count = int(rate * DAY_S)
    return [
        Request(time, draw.choice(MIX), draw.random() < URGENT_PART)
        for time in bursts(draw, count, rate)
    ]


def absences(seed: int, machines: int) -> list[Absence]:
    """When spot machines go and come: each by itself, and all at once a few times a day."""
    draw = random.Random(f"{seed} absences")
    droughts = sorted(draw.uniform(0, DAY_S - DROUGHT_S) for _ in range(RECLAIMS))
    found = []
    for machine in range(machines):
        gone_until = own = 0.0
        moments = [(start + draw.uniform(0, 60), start + DROUGHT_S) for start in droughts]
        while (own := own + draw.expovariate(1 / LIFE_S)) < DAY_S:
            moments.append((own, own))
        for notice, not_before in sorted(moments):
            if notice < gone_until:
                continue
            gone = notice + (0.0 if draw.random() < UNTOLD_PART else NOTICE_S)
            gone_until = max(gone, not_before) + draw.uniform(*AWAY_S)
            found.append(Absence(machine, notice, gone, gone_until))
    return sorted(found, key=lambda one: one.notice)
