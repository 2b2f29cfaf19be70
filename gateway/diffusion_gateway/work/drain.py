"""Draining: a worker takes nothing new, lets short jobs end, and hands the others on in time."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion_gateway.work.attempt import Attempt, Stop

if TYPE_CHECKING:
    from diffusion_gateway.estimates import Estimator
    from diffusion_gateway.work.worker import Worker

logger = logging.getLogger(__name__)

_RESERVE_S = 2.0
"""Kept of the time to hand jobs back in, or a quarter of it where there is little."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of the jobs that were in hand."""

    ended: int
    handed_back: int


async def drain(worker: Worker, estimator: Estimator, within_s: float) -> Drained:
    """Returns when nothing is in hand any more, at most `within_s` seconds later.

    A job that will not end in time goes on elsewhere from its next checkpoint, or from the last one
    if none comes in time; without checkpoints it is given until the last moment.
    """
    reserve = min(_RESERVE_S, within_s / 4)
    give_up = time.monotonic() + within_s - reserve
    in_hand = worker.running
    logger.info("draining: %d jobs in hand, %.0f s", len(in_hand), within_s)
    await asyncio.gather(
        *(_see_off(attempt, task, estimator, give_up) for attempt, task in in_hand)
    )
    tasks = [task for _, task in in_hand]
    if tasks:
        await asyncio.wait(tasks, timeout=reserve)
    back = sum(attempt.outcome == "handed_back" for attempt, _ in in_hand)
    logger.info("drained: %d jobs handed back", back)
    return Drained(ended=len(in_hand) - back, handed_back=back)


async def _see_off(
    attempt: Attempt, task: asyncio.Task[None], estimator: Estimator, give_up: float
) -> None:
    """Waits for an attempt's end as long as that makes sense, then stops it."""
    budget = max(0.0, give_up - time.monotonic())
    left = attempt.drawing.seconds_left
    if left is None:
        left = estimator.remaining(attempt.job, attempt.drawing.step)
    too_long = left is not None and left > budget and not attempt.storing
    waiting = {task}
    if too_long and attempt.drawing.can_resume:
        waiting.add(asyncio.create_task(attempt.checkpointed()))
    await asyncio.wait(waiting, timeout=budget, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting - {task}:
        one.cancel()
    if not task.done():
        attempt.stop(Stop.DRAINED)
