"""Knows when a version has answered everything: nothing waits, and no worker is at work.

TorchServe tells how many requests wait but not how many a worker has in hand, and it kills a
worker that is scaled away or unregistered, whatever it does. Its log tells: a worker thread writes
one line when it hands a batch to its process and one when the answer is back, in either mode.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from serving.errors import Trouble
from serving.management import Management
from serving.registration import Registration

_LINE = re.compile(
    r"W-(?P<port>\d+)-\S+ org\.pytorch\.serve\.wlm\.WorkerThread - "
    r"(?P<event>Looping backend response|Backend response time)"
)
# Continuous batching calls the handler every 50 ms while it has requests: silence means none.
_QUIET_SECONDS = 1.0
# A rotated log could hide a hand-over; this much of the tail covers thousands of batches.
_TAIL_BYTES = 4 << 20


def drain(
    management: Management,
    registration: Registration,
    log: Path,
    patience: float,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Returns when the version, which gets no new requests, has none left; `Trouble` if it stays.

    Args:
        log: TorchServe's ts_log.log.
        patience: seconds to wait.
        progress: told in words what is left.
    """
    end = time.monotonic() + patience
    idle_since: float | None = None
    while True:
        left = management.version(registration.name, registration.version)
        busy = busy_workers(log) & {worker.port for worker in left.workers}
        if left.pending or busy:
            idle_since = None
            progress(f"{left.pending} waiting, {len(busy)} workers busy")
        else:
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since >= _QUIET_SECONDS:
                return
        if time.monotonic() > end:
            raise Trouble(
                f"{left.name} {left.version} still has requests after {patience:.0f} s and was "
                f"left registered; `make unregister NAME={left.name} VERSION={left.version}` "
                "drains it again."
            )
        time.sleep(0.1)


def busy_workers(log: Path) -> set[str]:
    """The ports (TorchServe's ids) of the workers that have a batch in hand, from its log."""
    busy: set[str] = set()
    for line in _tail(log):
        found = _LINE.search(line)
        if found is None:
            continue
        if found["event"] == "Looping backend response":
            busy.add(found["port"])
        else:
            busy.discard(found["port"])
    return busy


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
