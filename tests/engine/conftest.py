"""Engines are stepped by hand on one thread, with gradients off as on the engine's own thread."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.register_assert_rewrite("rig", "leaks")

from sameness import Sameness  # noqa: E402

_SAMENESS = pytest.StashKey[Sameness]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SAMENESS] = Sameness()


@pytest.fixture
def sameness(request: pytest.FixtureRequest) -> Sameness:
    return request.config.stash[_SAMENESS]


@pytest.fixture(autouse=True)
def _one_thread_without_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    kept = config.stash[_SAMENESS]
    if not kept.rows:
        return
    terminalreporter.section("the same image: distance from diffusers' own pipeline")
    for line in kept.table():
        terminalreporter.write_line(line)
    report = os.environ.get("SAME_IMAGE_REPORT")
    if report:
        Path(report).write_text(json.dumps(kept.document(), indent=1) + "\n")
