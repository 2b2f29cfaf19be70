"""A server that speaks OpenAI's API, a fake that draws, and the official client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from api_rig import Server, make_gateway, serving
from openai_rig import FakeWorker, client_of, working


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(make_gateway(tmp_path_factory.mktemp("gateway"))) as made:
        yield made


@pytest.fixture
def worker(server: Server) -> Iterator[FakeWorker]:
    with working(server) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made
