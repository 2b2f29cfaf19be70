from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from served import ROOT, build
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server
from tiny import save_tiny_stable_diffusion

PROFILE = ROOT / "config" / "config.properties"


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, pipeline: Path) -> Path:
    """A model store with tiny.mar, for one worker."""
    folder = tmp_path_factory.mktemp("system") / "store"
    folder.mkdir()
    build(folder, pipeline, "tiny", "zip-store")
    return folder


@pytest.fixture(scope="module")
def new_server(
    tmp_path_factory: pytest.TempPathFactory, store: Path
) -> Iterator[Callable[[], Server]]:
    """Makes servers, each in a run folder and on ports of its own; stops them at the end."""
    servers: list[Server] = []

    def make() -> Server:
        server = Server(tmp_path_factory.mktemp("run"))
        servers.append(server)
        server.start(PROFILE, store, port=free_base())
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(new_server: Callable[[], Server]) -> Server:
    return new_server()


@pytest.fixture(scope="module")
def fleet(server: Server) -> Fleet:
    return Fleet(server)


@pytest.fixture(scope="module")
def url(server: Server, fleet: Fleet) -> str:
    """Where the tiny model answers; registered once a module."""
    fleet.register("tiny.mar", "tiny")
    return f"{server.require().inference}/predictions/tiny"
