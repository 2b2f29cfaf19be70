"""What models said of themselves, kept in a file: jobs are taken for those that sleep or start."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffusion_core.capabilities import Capabilities
from diffusion_core.limits import Defaults, Limits
from diffusion_gateway.upstream.endpoints import Endpoint, Registration
from diffusion_gateway.upstream.model_server import Registered

logger = logging.getLogger(__name__)


class ModelMemory:
    """models.json beside an embedded store, else in `folder`.

    Without the file, or where it cannot be written, models are known once they have run.
    """

    def __init__(self, store_url: str, folder: Path) -> None:
        kind, _, path = store_url.partition(":")
        self.path = (Path(path).parent if kind == "sqlite" else folder) / "models.json"
        self._writes = True

    def remember(self, registrations: Iterable[Registration]) -> None:
        """Writes what is known, in one piece or not at all."""
        entries = [
            {
                "endpoint": one.endpoint.server.inference,
                "registered": {**asdict(one.known), "processes": []},
                "description": one.description,
                "wanted": one.wanted,
                "wake_s": one.wake_s,
            }
            for one in registrations
            if one.description is not None
        ]
        draft = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"format": 1, "models": entries}))
            os.replace(draft, self.path)
            self._writes = True
        except OSError as error:
            if self._writes:
                logger.warning("%s cannot be written: %s", self.path, error.strerror)
            self._writes = False

    def recall(self, endpoint: Endpoint) -> None:
        """Adds the registrations that an endpoint had when the gateway last ran, without
        workers."""
        try:
            for entry in json.loads(self.path.read_text())["models"]:
                known = without_workers(Registered(**entry["registered"]))
                if entry["endpoint"] == endpoint.server.inference and endpoint.serves(known.name):
                    check_description(entry["description"])
                    endpoint.registrations[known.name] = Registration(
                        endpoint,
                        known,
                        entry["description"],
                        seen=time.monotonic(),
                        wanted=entry["wanted"],
                        wake_s=entry["wake_s"],
                    )
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read: %s", self.path, error)


def check_description(description: dict[str, Any]) -> None:
    """`KeyError` or `ValueError` for one that no request schema can be made of."""
    Capabilities.model_validate(description["capabilities"])
    Limits.model_validate(description["limits"])
    Defaults.model_validate(description["handler_defaults"])
    for name in ("identity", "runtime_identity"):
        if not isinstance(description[name], str):
            raise ValueError(f"{name} must be text")


def without_workers(known: Registered) -> Registered:
    """The registration as it is when nobody is there to work."""
    return replace(known, workers=0, ready=0, processes=frozenset())
