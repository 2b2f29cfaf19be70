"""Which ports are taken, and by whom."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil

from serving.errors import Trouble


def require_free(ports: Mapping[str, int]) -> None:
    """`Trouble` naming the first port that is taken, who holds it and how to choose another."""
    for port in ports.values():
        if is_taken(port):
            raise Trouble(
                f"Port {port} is taken by {holder(port)}; choose five free ports in a row with "
                f"PORT=<first>, for example `make demo PORT={free_base()}`."
            )


def is_taken(port: int) -> bool:
    """Whether somebody listens on `port` of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def holder(port: int) -> str:
    """The process that listens on `port`, as far as this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process"
    for connection in connections:
        listening = connection.status == psutil.CONN_LISTEN
        if listening and connection.pid and list(connection.laddr)[1:] == [port]:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "another process"


def free_port() -> int:
    """A port that nobody listens on, chosen by the system: two who ask at once get two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_base(start: int = 18080, count: int = 5) -> int:
    """The first of `count` free ports in a row."""
    for base in range(start, 60000, 10):
        if not any(is_taken(base + offset) for offset in range(count)):
            return base
    raise Trouble("There are no five free ports in a row.")
