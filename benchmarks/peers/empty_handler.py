"""A TorchServe handler that does nothing: what is left is TorchServe's own time for a request."""

from __future__ import annotations

from typing import Any

from ts.torch_handler.base_handler import BaseHandler


class EmptyHandler(BaseHandler):
    """Answers every request with the same bytes."""

    def initialize(self, context: Any) -> None:
        """The answer: a PNG's first bytes and zeros, as long as a small picture's file."""
        settings = context.model_yaml_config["answer"]
        self.body = b"\x89PNG\r\n\x1a\n" + bytes(settings["bytes"])
        self.initialized = True

    def handle(self, data: list[Any], _context: Any) -> list[bytes]:
        """The answer for each."""
        return [self.body for _ in data]
