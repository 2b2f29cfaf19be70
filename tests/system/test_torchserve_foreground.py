"""TorchServe under a service manager: `server.py serve --foreground`, as in config/systemd."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from served import ROOT, ask
from serving.ports import free_base
from serving.server import Server

pytestmark = pytest.mark.system

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started: list[subprocess.Popen[str]] = []

    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "scripts/server.py", "serve", "--foreground", "--run-folder"]
        command += [str(tmp_path), *more]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    Server(tmp_path).stop()


def until(process: subprocess.Popen[str], words: str) -> None:
    """Reads what it prints up to a line with these words."""
    assert process.stdout is not None
    assert any(words in line for line in process.stdout), words


def ends(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    return process.returncode


def test_sigterm_ends_both_with_0(serve: Serve, tmp_path: Path) -> None:
    process = serve("--port", str(free_base()), "--model-store", str(tmp_path / "store"))
    until(process, "TorchServe runs")
    running = Server(tmp_path).require()
    assert ends(process) == 0
    assert not psutil.pid_exists(running.pid)


@pytest.mark.full
def test_what_was_served_comes_back_after_a_stop_and_a_death(
    serve: Serve, tmp_path: Path, store: Path
) -> None:
    base = str(free_base())
    named = ("--model-store", str(store), "--archive", "tiny.mar", "--name", "tiny")
    first = serve("--port", base, *named)
    until(first, "tiny is READY")
    server = Server(tmp_path)
    again = serve(*named)
    assert again.wait(60) == 1
    assert ends(first) == 0

    second = serve(*named)
    until(second, "tiny is READY")
    running = server.require()
    assert running.inference.endswith(base)
    psutil.Process(running.pid).kill()
    assert second.wait(60) == 1

    third = serve(*named)
    until(third, "tiny is READY")
    assert ask(f"{running.inference}/predictions/tiny").status_code == 200
    assert ends(third) == 0
