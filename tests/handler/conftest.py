"""A handler on a tiny real pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handler_client import Client, open_client
from tiny import tiny_stable_diffusion
from unpacked import unpack


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("archive"), tiny_stable_diffusion())


@pytest.fixture(scope="session")
def client(tiny_folder: Path) -> Iterator[Client]:
    opened = open_client(tiny_folder)
    yield opened
    assert opened.handler.service is not None
    opened.handler.service.close()
