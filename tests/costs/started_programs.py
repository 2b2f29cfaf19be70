"""Programs that the tests start: where they listen, and whether they do yet."""

from __future__ import annotations

import socket
import time

import requests


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def wait_until_ready(url: str) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            if requests.get(f"{url}/-/ready", timeout=1).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} does not get ready")
