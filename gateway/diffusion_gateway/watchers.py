"""Watchers: how many connections may follow jobs, and a way to end them all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from diffusion_core.errors import OverloadedError

_SHARE = 0.5
"""One tenant's part of all places, so that its watchers never lock others out."""

_RETRY_S = 10.0


class _Counts(Protocol):
    def watching(self, transport: str, change: int) -> None: ...


class Watchers:
    """Places for connections that follow jobs.

    Args:
        limit: places in all.
        shared: whether several tenants use them.
    """

    def __init__(self, limit: int, *, shared: bool, counts: _Counts) -> None:
        self._limit = limit
        self._each = max(1, int(limit * _SHARE)) if shared else limit
        self._counts = counts
        self._taken = 0
        self._by_tenant: Counter[str] = Counter()
        self._closing = asyncio.Event()

    @property
    def closing(self) -> asyncio.Event:
        """Set once the gateway ends: whoever follows a job is to come back elsewhere."""
        return self._closing

    def close(self) -> None:
        """Tells all watchers to end."""
        self._closing.set()

    @contextmanager
    def place(self, tenant: str, transport: str) -> Iterator[None]:
        """A place for as long as the block runs; `OverloadedError` if there is none."""
        if self._closing.is_set():
            raise OverloadedError("the gateway is ending", retry_after=1.0)
        if self._taken >= self._limit or self._by_tenant[tenant] >= self._each:
            raise OverloadedError(
                "as many jobs are watched as may be; ask for the job now and then instead",
                retry_after=_RETRY_S,
            )
        self._taken += 1
        self._by_tenant[tenant] += 1
        self._counts.watching(transport, 1)
        try:
            yield
        finally:
            self._counts.watching(transport, -1)
            self._taken -= 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
