"""TorchServe for as long as this process lives: what a service manager starts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from serving.errors import Trouble
from serving.server import Server


@contextmanager
def foreground(server: Server) -> Iterator[None]:
    """Stops the server where the block ends, or SIGTERM or Ctrl+C ends it; exit code 0 then.

    A machine that starts again is to serve what it served: the next start brings the models back.
    `Trouble` where the server runs already: it is somebody else's to end.
    """
    running = server.find()
    if running is not None:
        raise Trouble(f"TorchServe runs already (process {running.pid}); `make stop` ends it.")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        server.stop(forget=False)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    sys.exit(0)
