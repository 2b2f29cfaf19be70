"""The project's handler with clocks: CPU seconds in models, schedulers and image files.

It replaces the handler in a copy of an archive. With one thread of torch's, all that a model costs
is on the thread that calls it, so a thread's CPU clock tells it.
"""

from __future__ import annotations

import time
from typing import Any

from clocks import Clocks

import diffusion_engine.answers
from diffusion_handler import DiffusionHandler


class ClockedHandler(DiffusionHandler):
    """Tells its clocks in describe."""

    def initialize(self, context: Any) -> None:
        """Loads, then hangs the clocks in."""
        super().initialize(context)
        self._clocks = Clocks()
        assert self.service is not None
        self._clocks.watch(self.service.served.pipelines["text-to-image"])
        self._clocks.wrap(diffusion_engine.answers, "encode", "files")

    def describe_handle(self) -> dict[str, Any]:
        """The description, the clocks and this process's CPU seconds in it."""
        clocks = {**self._clocks.seconds, "process": time.process_time()}
        return {**super().describe_handle(), "clocks": clocks}
