"""Starting, stopping and dying: what is left behind, and what a person is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from served import ROOT, ask
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server

pytestmark = pytest.mark.system

PROFILE = ROOT / "config" / "config.properties"


@pytest.mark.full
def test_a_killed_server_starts_again(new_server: Callable[[], Server], store: Path) -> None:
    server = new_server()
    Fleet(server).register("tiny.mar", "tiny")
    running = server.require()
    (worker,) = server.management().version("tiny").workers
    url = f"{running.inference}/predictions/tiny"
    busy = threading.Thread(target=_ask_and_ignore, args=(url,))
    busy.start()
    time.sleep(1)
    psutil.Process(running.pid).kill()
    psutil.wait_procs([psutil.Process(running.pid)], timeout=10)
    assert server.find() is None

    server.start(PROFILE, store, port=free_base())
    assert not psutil.pid_exists(worker.pid)
    assert list((server.temporary / "models").glob("*")) == []
    Fleet(server).register("tiny.mar", "tiny")
    assert ask(f"{server.require().inference}/predictions/tiny").status_code == 200
    busy.join()

    assert server.stop()
    assert not server.temporary.exists()
    assert server.find() is None


def test_a_busy_port_is_named_with_its_holder(tmp_path: Path, store: Path) -> None:
    base = free_base(28080)
    told = pytest.raises(Trouble, match=rf"Port {base + 1} is taken by .*; choose .* PORT=")
    with socket.create_server(("127.0.0.1", base + 1)), told:
        Server(tmp_path).start(PROFILE, store, port=base)


def test_an_archive_that_is_not_there_is_named(new_server: Callable[[], Server]) -> None:
    server = new_server()
    with pytest.raises(Trouble, match=r"holds no archive 'nothing.mar' \(it holds: .*tiny.mar"):
        Fleet(server).register("nothing.mar", "nothing")
    with pytest.raises(Trouble, match="No model nothing"):
        server.management().version("nothing")
    response = requests.post(
        f"{server.require().management}/models",
        params={"url": "http://127.0.0.1:1/a.mar"},
        timeout=10,
    )
    assert "does not match any allowed URL" in response.text


def _ask_and_ignore(url: str) -> None:
    try:
        ask(url, num_inference_steps=900)
    except requests.RequestException:
        return
