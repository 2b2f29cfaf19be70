"""Certificates by openssl, and servers that show them."""

from __future__ import annotations

import shlex
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NEW = (
    "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"
)
HERE = " -addext subjectAltName=IP:127.0.0.1"


def openssl(folder: Path, arguments: str) -> None:
    command = ["openssl", *shlex.split(arguments)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def self_signed(folder: Path, name: str, names: str = HERE) -> Path:
    openssl(folder, NEW.format(name=name) + names)
    return folder / f"{name}.pem"


def signed_by_another(folder: Path) -> Path:
    """As one that an authority made: the leaf alone, for this very address."""
    self_signed(folder, "authority", "")
    openssl(
        folder,
        "req -newkey rsa:2048 -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf" + HERE,
    )
    openssl(
        folder,
        "x509 -req -in leaf.csr -CA authority.pem -CAkey authority.key -days 2 -out leaf.pem "
        "-CAcreateserial -copy_extensions copy",
    )
    return folder / "leaf.pem"


@contextmanager
def answering(certificate: Path) -> Iterator[str]:
    """A server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        # In the connection's thread: a client that goes away within it keeps no other waiting.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
