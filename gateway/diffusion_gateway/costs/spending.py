"""What an attempt at a job takes of devices, and how much of it is of use to the job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from diffusion_gateway.costs.tariff import Quote
from diffusion_gateway.job import Checkpoint


@dataclass(frozen=True, slots=True)
class Spent:
    """Device time, and its price in billionths."""

    device_seconds: float = 0.0
    nanos: int = 0

    @classmethod
    def until(cls, checkpoint: Checkpoint | None) -> Spent:
        """What the steps had taken that a checkpoint saves."""
        if checkpoint is None:
            return cls()
        return cls(checkpoint.device_seconds, checkpoint.nanos)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.device_seconds + other.device_seconds, self.nanos + other.nanos)

    def __sub__(self, other: Spent) -> Spent:
        """What is left of it, nothing at the least."""
        return Spent(
            max(0.0, self.device_seconds - other.device_seconds), max(0, self.nanos - other.nanos)
        )


class Spending:
    """Follows one attempt, over all the servers that it tries.

    Args:
        carried: what the checkpoint saves that it may go on from.
        clock: seconds, monotonic.

    Attributes:
        quote: of the server tried last.
        repeated: spent on what will be, or was, done again.
    """

    def __init__(self, carried: Spent, clock: Callable[[], float] = time.monotonic) -> None:
        self.quote = Quote()
        self.repeated = Spent()
        self._carried = carried
        self._try = Spent()
        self._clock = clock
        self._began: float | None = None

    @property
    def useful(self) -> Spent:
        """What the job's pictures have cost, if they are drawn now or go on from here."""
        return self._carried + self._try

    def begin(self, quote: Quote, resumed: Spent) -> None:
        """Another try, at a server of this price, that goes on from what `resumed` has saved."""
        self.repeated += self.useful - resumed
        self._carried, self._try = resumed, Spent()
        self.quote = quote
        self._began = self._clock()

    def told(self, device_seconds: float) -> None:
        """What this try has taken so far; a lower figure than before changes nothing."""
        if device_seconds > self._try.device_seconds:
            self._try = Spent(device_seconds, self.quote.nanos(device_seconds))

    def until(self, device_seconds: float) -> Spent:
        """What the pictures had cost when this try had taken so much."""
        return self._carried + Spent(device_seconds, self.quote.nanos(device_seconds))

    def answered(self) -> None:
        """The server said itself how the try ended: nothing is left to be assumed."""
        self._began = None

    def assume(self, device_seconds: float) -> None:
        """A try ended without a word: it took that, as far as is known, or as long as it lasted if
        that was less. What it has told itself is known better."""
        if self._began is not None and not self._try.device_seconds:
            self.told(min(device_seconds, self._clock() - self._began))
        self._began = None
