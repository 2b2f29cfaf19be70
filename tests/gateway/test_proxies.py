"""A gateway behind a proxy: refused without keys, and whole behind the nginx of config/nginx."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from api_rig import client_of, make_gateway, serving
from diffusion_gateway.settings import GatewaySettings
from events_rig import begin, draw, read_stream
from serving.ports import free_port
from tenants_rig import key_of

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config/nginx/gateway.conf"
NAME = "draw.example.com"

# Debian keeps it where only root's PATH looks.
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
needs_nginx = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-Ip",
    ],
)
async def test_without_keys_what_a_proxy_passed_on_is_refused(tmp_path: Path, header: str) -> None:
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        answer = await client.get("/jobs", headers={header: "203.0.113.7"})
        problem = answer.json()
        assert (answer.status_code, problem["field"]) == (403, header)
        assert "auth to on" in problem["detail"]
        assert "public_url" in problem["detail"]


async def test_a_proxy_that_asks_who_is_there_may_be_named(tmp_path: Path) -> None:
    settings = {"auth": "off", "public_url": f"https://{NAME}"}
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    async with make_gateway(tmp_path, **settings) as gateway, client_of(gateway) as client:
        assert (await client.get("/jobs", headers={**forwarded, "Host": NAME})).status_code == 200
        other = {**forwarded, "Host": "evil.example"}
        assert (await client.get("/jobs", headers=other)).status_code == 421


async def test_with_keys_a_proxy_may_pass_on(tmp_path: Path) -> None:
    async with make_gateway(tmp_path, auth="on") as gateway, client_of(gateway) as client:
        headers = {"X-Forwarded-For": "203.0.113.7", "Host": NAME}
        assert (await client.get("/jobs", headers=headers)).status_code == 401
        headers |= await key_of(gateway, "shop")
        assert (await client.get("/jobs", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, False),
        ({"public_url": "http://localhost:8000"}, False),
        ({"public_url": f"https://{NAME}"}, True),
        ({"host": "0.0.0.0"}, True),
        ({"public_url": f"https://{NAME}", "auth": "off"}, False),
    ],
)
def test_a_public_address_asks_for_keys(settings: dict[str, Any], asks: bool) -> None:
    assert GatewaySettings.model_validate(settings).authenticates is asks


@needs_nginx
def test_nginx_with_its_defaults_opens_nothing(tmp_path: Path) -> None:
    """It adds no header and asks for the loopback address; it speaks HTTP/1.0 to the gateway."""
    port = free_port()
    with serving(make_gateway(tmp_path)) as server:
        text = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {server.url}; }} }}"
        with nginx(tmp_path, text, port):
            answer = httpx2.get(f"http://127.0.0.1:{port}/jobs", trust_env=False)
            assert httpx2.get(f"{server.url}/jobs", trust_env=False).status_code == 200
    assert (answer.status_code, answer.json()["field"]) == (403, "HTTP/1.0")


@needs_nginx
def test_the_nginx_of_the_page_passes_everything_on(tmp_path: Path) -> None:
    made = make_gateway(tmp_path, auth="on", public_url=f"https://{NAME}")
    port = free_port()
    with serving(made) as server:
        key = server.run(key_of(server.gateway, "shop"))
        text = config_for(tmp_path, server.url, port)
        trust = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        with nginx(tmp_path, text, port), client(port, trust) as outside:
            assert outside.get("/jobs").status_code == 401
            assert outside.get("/metrics", headers=key).status_code == 404
            answer = outside.post("/generate", json={"prompt": "x"}, headers=key)
            assert answer.status_code == 202
            job = answer.json()
            assert job["links"]["self"].startswith(f"https://{NAME}/jobs/")
            watch = f"/jobs/{job['job_id']}"
            with outside.stream("GET", f"{watch}/events", headers=key) as stream:
                told = read_stream(stream)
                assert next(told)["data"]["status"] == "pending"
                # Before its end: nothing is kept back.
                begin(server, steps=2)
                assert "progress" in (next(told)["event"], next(told)["event"])
            second = outside.post("/generate", json={"prompt": "y"}, headers=key).json()
            with socket(port, trust, second["job_id"], key) as messages:
                assert "pending" in messages.recv(timeout=10)
                draw(server)
                assert "completed" in list(messages)[-1]
            bound = server.gateway.settings.max_body_bytes
            for size, status in ((bound - 1000, 422), (bound + 1000, 413)):
                body = b'{"prompt": "' + b"x" * (size - 14) + b'"}'
                sent = {**key, "Content-Type": "application/json"}
                assert outside.post("/generate", content=body, headers=sent).status_code == status
            log = (tmp_path / "gateway.log").read_text()
    assert watch in log
    assert "?" not in log


def test_nginx_and_the_gateway_take_the_same_bodies() -> None:
    (bound,) = re.findall(r"client_max_body_size (\d+);", CONFIG.read_text())
    assert int(bound) == GatewaySettings().max_body_bytes


def test_the_page_shows_the_file() -> None:
    assert CONFIG.read_text() in (ROOT / "docs/gateway.md").read_text()


def client(port: int, trust: ssl.SSLContext) -> httpx2.Client:
    """Asks nginx by the public name, as if a name server knew it."""
    base = f"https://127.0.0.1:{port}"
    return httpx2.Client(
        base_url=base, verify=trust, headers={"Host": NAME}, trust_env=False, timeout=30
    )


def socket(port: int, trust: ssl.SSLContext, job_id: str, key: dict[str, str]) -> Any:
    return connect(
        f"wss://{NAME}/ws/jobs/{job_id}",
        address=("127.0.0.1", port),
        ssl=trust,
        additional_headers=key,
        proxy=None,
    )


def config_for(folder: Path, gateway: str, port: int) -> str:
    """The shipped file, with this test's ports and certificate."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    text = CONFIG.read_text()
    for sign, value in {
        "127.0.0.1:8000": gateway.removeprefix("http://"),
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        f"/etc/letsencrypt/live/{NAME}/fullchain.pem": str(folder / "certificate.pem"),
        f"/etc/letsencrypt/live/{NAME}/privkey.pem": str(folder / "key.pem"),
        "/var/log/nginx/gateway.log": str(folder / "gateway.log"),
    }.items():
        assert sign in text
        text = text.replace(sign, value)
    return text


@contextmanager
def nginx(folder: Path, servers: str, port: int) -> Iterator[None]:
    """A real nginx in the foreground, all of whose files are in `folder`."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"pid {folder}/nginx.pid;\ndaemon off;\nmaster_process off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}{servers}\n}}\n"
    )
    assert NGINX is not None
    command = [NGINX, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command)
    try:
        for _ in range(200):
            assert process.poll() is None, (folder / "error.log").read_text()
            try:
                httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            except httpx2.ConnectError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
