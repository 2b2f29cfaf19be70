"""Trying again until something that is away for a while comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


async def persist(call: Callable[[], Awaitable[T]], away: type[Exception], patience_s: float) -> T:
    """Calls until it returns; raises the last `away` after `patience_s` seconds of them."""
    give_up = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except away:
            if time.monotonic() + pause > give_up:
                raise
        # Many that wait for the same thing do not come back in one moment.
        await asyncio.sleep(pause * random.uniform(0.7, 1.3))
        pause = min(2 * pause, _LONGEST_PAUSE_S)
