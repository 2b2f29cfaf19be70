"""Counts what a worker does and tells its server: few samples, and none that a kill loses."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from diffusion_engine.metric_families import Change, Labels, Sample, samples
from diffusion_engine.places import Place
from diffusion_engine.readings import Readings
from diffusion_engine.service import DiffusionService
from diffusion_engine.worker_changes import WorkerChanges

logger = logging.getLogger(__name__)

# What is counted goes out at most every so many seconds, added up: its price does not grow with
# traffic. Prometheus asks less often than that.
_INTERVAL_S = 5.0
# A worker that nobody asks still tells that it lives, and how its machine is.
_HEARTBEAT_S = 10.0


class Reporter:
    """Sends from a thread of its own, so that no answer waits for it.

    Args:
        send: takes a sample to the server; called by one thread at a time.
        place: where changes are kept until they are sent.
    """

    def __init__(
        self,
        service: DiffusionService,
        model: str,
        send: Callable[[Sample], None],
        place: Place,
        *,
        interval_s: float = _INTERVAL_S,
        heartbeat_s: float = _HEARTBEAT_S,
    ) -> None:
        self._worker = WorkerChanges(service, model, place.number)
        self._send = send
        self._place = place
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._readings: Readings | None = None
        self._pending: list[Change] = []
        self._known: set[tuple[str, Labels]] = set()
        self._beat_at = -heartbeat_s
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> Reporter:
        """Tells that the worker is READY, every series it knows of, and what a dead one left."""
        # What was left is kept already.
        left = self._place.left_here()
        self._pending += [*left, *self._worker.zeros(), *self._worker.start_up()]
        self._thread.start()
        return self

    def record(self, changes: Iterable[Change]) -> None:
        """Takes changes; they will be sent though this process be killed. For any thread."""
        changes = list(changes)
        if not changes:
            return
        with self._lock:
            self._place.keep(changes)
            self._pending += changes
        self._news.set()

    def close(self) -> None:
        """Sends what there is, and gives the place back."""
        self._closed.set()
        self._news.set()
        self._thread.join()
        self._place.close()

    def tell(self) -> bool:
        """Sends what has changed since it was called last; whether anything was recorded."""
        beating = time.monotonic() - self._beat_at >= self._heartbeat_s
        if beating:
            self._beat_at = time.monotonic()
            self.record(self._place.inherit())
        with self._lock:
            changes, self._pending = self._pending, []
        news = bool(changes)
        changes += self._worker.increases()
        changes += self._worker.gauges()
        if beating:
            changes += self._machine()
        for sample in samples(changes):
            self._send_if_new(sample)
        with self._lock:
            self._place.forget()
            self._place.keep([*self._pending, *self._worker.at_stake()])
        return news

    def _send_if_new(self, sample: Sample) -> None:
        """An increase by 0 tells something only once: that the series is there."""
        series = (sample.name, sample.labels)
        if sample.value or sample.kind == "gauge" or series not in self._known:
            self._known.add(series)
            self._send(sample)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._news.clear()
            # After a rest the first news goes out at once.
            rest = self._interval_s if self._try_to_tell() else 0.0
            self._closed.wait(rest)
            self._news.wait(self._heartbeat_s - rest)
        self._try_to_tell()

    def _try_to_tell(self) -> bool:
        try:
            return self.tell()
        except Exception:
            # Pictures are worth more than figures about them.
            logger.exception("metrics were not told")
            return True

    def _machine(self) -> list[Change]:
        if not self._place.speaks_for_host:
            return []
        if self._readings is None:
            self._readings = Readings()
        return self._readings.changes()
