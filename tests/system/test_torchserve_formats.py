"""Archives of every format, served by a TorchServe whose environment does not hold this project."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from served import PNG, ask, build
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system

FILES = {"zip-store": ".mar", "no-archive": "", "tgz": ".tar.gz", "default": ".mar"}


@pytest.mark.parametrize(
    "format_",
    [
        "zip-store",
        "no-archive",
        pytest.param("tgz", marks=pytest.mark.full),
        pytest.param("default", marks=pytest.mark.full),
    ],
)
def test_an_archive_brings_all_its_code(
    format_: str, server: Server, pipeline: Path, store: Path
) -> None:
    python = server.folder / "python" / "bin" / "python"
    project = subprocess.run([python, "-c", "import diffusion_core"], capture_output=True)
    assert b"No module named 'diffusion_core'" in project.stderr

    name = f"format-{format_}"
    build(store, pipeline, name, format_)
    fleet = Fleet(server)
    fleet.register(f"{name}{FILES[format_]}", name)
    answer = ask(f"{server.require().inference}/predictions/{name}", seed=1)
    fleet.unregister(name)
    assert answer.content.startswith(PNG)


def test_two_servers_run_side_by_side(new_server: Callable[[], Server]) -> None:
    first, second = new_server(), new_server()
    assert first.stop()
    assert second.find() is not None
