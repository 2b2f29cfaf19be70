"""Events on their way to watchers: one bounded log a job, read by any number of watchers.

A watcher has no buffer of its own, only the id of the event that it read last. So a watcher that
never reads costs nothing and holds nobody up: what has left the log when it reads again is skipped.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from diffusion_gateway.job import Event, Job

KEPT = 200
"""Events of a job that are kept while it is under way."""

STRIDE = 1_000_000
"""How far the id of a status change is from the last one. Progress and previews are numbered in
between; where they are lost with a process, ids given later are larger still."""

_UNREAD_CANCELLATIONS = 10_000


def standing_event(job: Job, event_id: int) -> Event:
    """The status change, or the end, that led to where a job stands."""
    at = job.ended_at or job.started_at or job.submitted_at
    if job.status.ended:
        return Event(id=event_id, kind=job.status.value, at=at)
    return Event(id=event_id, kind="status", data={"status": job.status.value}, at=at)


def lost_end() -> Event:
    """The end of a job that was forgotten before its watchers heard what came of it."""
    return Event(id=2**53 - 1, kind="cancelled", at=time.time())


class _Log:
    """Events of one job in the order of their ids."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=KEPT)
        self.pinned = False
        self.watchers = 0
        self.loaded = False
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def newest(self) -> int:
        return self.events[-1].id if self.events else 0

    def add(self, event: Event) -> None:
        """Appends an event unless it is known, or older than what is."""
        if event.id > self.newest:
            self.events.append(event)
            self._wake()

    def fill(self, events: Iterable[Event]) -> None:
        """Merges events that were kept elsewhere."""
        merged = {event.id: event for event in (*events, *self.events)}
        self.events = deque((merged[event_id] for event_id in sorted(merged)), maxlen=KEPT)
        self.loaded = True
        self._wake()

    def after(self, event_id: int) -> list[Event]:
        return [event for event in self.events if event.id > event_id]

    async def changed(self) -> None:
        """Returns when an event has come."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Cancellations:
    """Ids of cancelled jobs, from the moment it was made. One that is not read keeps the latest."""

    def __init__(self) -> None:
        self._ids: deque[str] = deque(maxlen=_UNREAD_CANCELLATIONS)
        self._come = asyncio.Event()

    def __aiter__(self) -> Cancellations:
        return self

    async def __anext__(self) -> str:
        while not self._ids:
            self._come.clear()
            await self._come.wait()
        return self._ids.popleft()

    def add(self, job_id: str) -> None:
        self._ids.append(job_id)
        self._come.set()


class EventHub:
    """The logs of jobs that are watched or pinned. For one event loop."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._cancellations: weakref.WeakSet[Cancellations] = weakref.WeakSet()

    def watches(self, job_id: str) -> bool:
        """Whether events of the job are of interest."""
        return job_id in self._logs

    def watched(self) -> list[str]:
        """Jobs with a log."""
        return list(self._logs)

    def pin(self, job_id: str) -> None:
        """Keeps the job's events even while nobody watches."""
        self._logs.setdefault(job_id, _Log()).pinned = True

    def add(self, job_id: str, event: Event) -> None:
        """Adds an event to the job's log, if there is one; an end unpins it."""
        log = self._logs.get(job_id)
        if log is None:
            return
        log.add(event)
        if event.last:
            log.pinned = False
            self._drop_if_idle(job_id, log)

    def number(self, job_id: str) -> int:
        """The id that the next event between two status changes gets."""
        return self._logs[job_id].newest + 1

    def fill(self, job_id: str, events: Iterable[Event]) -> None:
        """Adds events that were kept elsewhere to the job's log, if there is one."""
        log = self._logs.get(job_id)
        if log is not None:
            log.fill(events)

    async def watch(
        self, job_id: str, after: int, load: Callable[[str], Awaitable[Sequence[Event]]]
    ) -> AsyncGenerator[Event, None]:
        """Events above `after` until the end; `load` gives those that are kept elsewhere."""
        with self._watching(job_id) as log:
            if not log.loaded:
                log.fill(await load(job_id))
            while True:
                for event in log.after(after):
                    after = event.id
                    yield event
                    if event.last:
                        return
                if log.newest > after:
                    continue
                if log.events and log.events[-1].last:
                    return
                await log.changed()

    @contextmanager
    def _watching(self, job_id: str) -> Iterator[_Log]:
        log = self._logs.setdefault(job_id, _Log())
        log.watchers += 1
        try:
            yield log
        finally:
            log.watchers -= 1
            self._drop_if_idle(job_id, log)

    def _drop_if_idle(self, job_id: str, log: _Log) -> None:
        if not log.watchers and not log.pinned and self._logs.get(job_id) is log:
            del self._logs[job_id]

    def cancelled(self, job_id: str) -> None:
        """Tells all who listen for cancellations."""
        for listener in tuple(self._cancellations):
            listener.add(job_id)

    def cancellations(self) -> Cancellations:
        """A new listener."""
        listener = Cancellations()
        self._cancellations.add(listener)
        return listener
