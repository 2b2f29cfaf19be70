"""A real Prometheus of a test's own, which asks often and knows the project's rules."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import yaml

from served import ROOT
from serving.ports import free_base

PROGRAM = shutil.which("prometheus")

_PATIENCE_S = 30.0


@contextmanager
def prometheus(
    folder: Path,
    targets: Mapping[str, list[str]],
    interval_s: int = 1,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[str]:
    """The address of a Prometheus that scrapes `targets`, addresses by job; `labels` are those of
    addresses."""
    assert PROGRAM is not None
    port = free_base(19090, count=1)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(_config(folder, targets, interval_s, labels or {})))
    command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, folder / "prometheus.log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _config(
    folder: Path,
    targets: Mapping[str, list[str]],
    interval_s: int,
    labels: Mapping[str, Mapping[str, str]],
) -> dict[str, object]:
    """The delivered rules, evaluated as often as is scraped."""
    rules = folder / "rules"
    rules.mkdir()
    for path in (ROOT / "config" / "prometheus" / "rules").glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
        (rules / path.name).write_text(yaml.safe_dump(document))
    scraped = [
        {
            "job_name": job,
            "static_configs": [
                {"targets": [address], "labels": dict(labels.get(address, {}))}
                for address in addresses
            ],
        }
        for job, addresses in targets.items()
    ]
    return {
        "global": dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{interval_s}s"
        ),
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": scraped,
    }


def _wait(url: str, log: Path) -> None:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        try:
            if requests.get(f"{url}/-/ready", timeout=2).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@contextmanager
def exposing(text: str) -> Iterator[str]:
    """The address of a target that says `text`, for what this machine has none of."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
