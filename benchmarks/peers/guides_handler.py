"""The TorchServe handler that serving guides show: each request of a batch in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drawing import Drawer
from ts.torch_handler.base_handler import BaseHandler


class GuidesHandler(BaseHandler):
    """Loads a pipeline, then loops over the requests that TorchServe hands over together."""

    def initialize(self, context: Any) -> None:
        """Loads the pipeline that the model config names and draws once."""
        settings = context.model_yaml_config["drawing"]
        self.drawer = Drawer(Path(settings["folder"]), settings["dtype"], settings["threads"])
        self.drawer.draw([settings["warmup"]])
        self.initialized = True

    def preprocess(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The requests' JSON."""
        bodies = [row.get("body") or row.get("data") for row in data]
        return [body if isinstance(body, dict) else json.loads(body) for body in bodies]

    def inference(self, data: list[dict[str, Any]]) -> list[bytes]:
        """A picture for each, one after the other."""
        return [self.drawer.draw([request])[0] for request in data]

    def postprocess(self, data: list[bytes]) -> list[bytes]:
        """Files, as every other measured system sends them."""
        return data
