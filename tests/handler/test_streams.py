"""Streams: what comes in them, and how they end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.model_config import parse_model_config
from diffusion_engine.pending import Pending
from diffusion_engine.service import DiffusionService
from unpacked import TINY_HANDLER

LINES = "application/x-ndjson"


@pytest.fixture(scope="module")
def service(tiny_folder: Path) -> Iterator[DiffusionService]:
    # Never warmed up, so nothing is measured: a time limit is not refused beforehand.
    config = parse_model_config({"continuousBatching": True, "handler": TINY_HANDLER})
    opened = DiffusionService(tiny_folder, config)
    yield opened
    opened.close()


def events(service: DiffusionService, **fields: Any) -> list[dict[str, Any]]:
    pending = service.submit({"prompt": "a cat", **fields}, accept=LINES)
    pending.answer.result(60)
    assert pending.stream is not None
    return [json.loads(line) for line in pending.stream.take()[0].splitlines()]


def test_every_step_is_told(service: DiffusionService) -> None:
    told = events(service, num_inference_steps=5)
    assert [event["step"] for event in told[:-1]] == [1, 2, 3, 4, 5]
    assert {event["steps"] for event in told[:-1]} == {5}
    assert told[-1]["type"] == "completed"


def test_one_that_fails_midway_ends_with_the_error(service: DiffusionService) -> None:
    told = events(service, num_inference_steps=100, timeout_s=0.2)
    assert told[0]["type"] == "progress"
    assert told[-1]["type"] == "error"
    assert told[-1]["error"]["status"] == 504


def test_a_cancelled_one_ends(service: DiffusionService) -> None:
    pending = service.submit({"prompt": "a cat", "num_inference_steps": 100}, accept=LINES)
    service.cancel(pending)
    assert pending.answer.result(60).status == 499


def test_who_sends_the_last_event_finds_the_phases_to_count(service: DiffusionService) -> None:
    held: list[Pending] = []
    known, woken = threading.Event(), threading.Event()
    found: list[bool] = []

    def wake() -> None:
        # Steps alone wake nobody: this is the last event.
        known.wait(60)
        found.append(bool(held[0].phases))
        woken.set()

    fields = {"prompt": "a cat", "num_inference_steps": 2}
    held.append(service.submit(fields, accept=LINES, wake=wake))
    known.set()
    assert woken.wait(60)
    assert found[0]
