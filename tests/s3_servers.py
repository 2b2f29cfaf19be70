"""S3 for tests: moto's server, nanio (which verifies signatures), and one that misbehaves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from serving.ports import free_port

BUCKET = "pictures"
KEY_ID = "AKIDEXAMPLE"
SECRET = "a-secret-of-twenty-characters-or-more"


def environment(address: str) -> dict[str, str]:
    """What obstore reads to find and use an S3 at `address`."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """moto's S3 with a bucket; yields its address."""
    port = free_port()
    command = [_program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, {}, folder / "moto.log", port) as address:
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield address


@contextmanager
def nanio(folder: Path) -> Iterator[str]:
    """nanio with a bucket; yields its address."""
    port = free_port()
    data = folder / "nanio"
    (data / BUCKET).mkdir(parents=True)
    command = [_program("nanio"), "serve", "--data-dir", str(data)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    keys = {"NANIO_ACCESS_KEY": KEY_ID, "NANIO_SECRET_KEY": SECRET}
    with _running(command, keys, folder / "nanio.log", port) as address:
        yield address


class Misbehaving(ThreadingHTTPServer):
    """Not an S3: a fake that answers as a broken one does.

    Attributes:
        answers: statuses of the next requests; the last one stays.
        delay_s: before each answer.
        asked: methods and paths of requests.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.answers = [200]
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.bodies = {403: "AccessDenied", 404: "NoSuchBucket", 500: "InternalError"}

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answering(BaseHTTPRequestHandler):
    server: Misbehaving
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        server = self.server
        self.rfile.read(int(self.headers.get("content-length", 0)))
        server.asked.append(f"{self.command} {self.path}")
        status = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        time.sleep(server.delay_s)
        code = server.bodies.get(status)
        body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
        try:
            self.send_response(status)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        return


@contextmanager
def misbehaving() -> Iterator[Misbehaving]:
    """A running fake."""
    server = Misbehaving()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _running(command: list[str], more: dict[str, str], log: Path, port: int) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **more}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not start: {log.read_text()}")


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)
