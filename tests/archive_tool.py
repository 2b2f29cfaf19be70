"""The archive tool as its users call it: what a run of it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Outcome:
    """Exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def sha256(self) -> str:
        return self.out.strip().rpartition("sha256 ")[2]


Run = Callable[..., Outcome]
