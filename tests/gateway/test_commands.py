"""The gateway's commands as processes: one sentence for an error, keys, serving, draining."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from diffusion_gateway.stores import store_shown
from fake_torchserve import Asked, draw, faked
from serving.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return {
        **kept,
        "PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'gateway'}",
        "GATEWAY_STORE_URL": f"sqlite:{tmp_path}/jobs.sqlite",
        "GATEWAY_RESULTS_URL": f"file:{tmp_path}/results",
        # Whatever a command does not name: the usual one may be taken on this machine.
        "GATEWAY_PORT": "0",
        # Nobody is there: the gateway answers, and is not ready.
        "GATEWAY_ENDPOINTS": "[{inference: 'http://127.0.0.1:9', management: 'http://127.0.0.1:9'}]",
    }


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Any:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "diffusion_gateway", *arguments],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def served(environment: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    """Starts gateways in the background; they are gone at the end."""
    started: list[subprocess.Popen[str]] = []
    clients: list[httpx2.Client] = []

    def serve(*arguments: str, **variables: str) -> tuple[subprocess.Popen[str], httpx2.Client]:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusion_gateway", "serve", "--port", str(port), *arguments],
            env={**environment, **variables},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5)
        clients.append(client)
        for _ in range(300):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                assert client.get("/healthz").status_code == 200
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        return process, client

    yield serve
    for client in clients:
        client.close()
    for process in started:
        process.kill()
        process.communicate()


def test_keys_are_made_listed_and_revoked(command, tmp_path):
    made = command("keys", "create", "shop", "--weight", "2", "--max-active", "10")
    key = made.stdout.strip()
    assert re.fullmatch(r"td_[\w-]{43}", key)
    (identifier,) = re.findall(r"Key (\w+) of shop", made.stderr)
    assert f"kept in sqlite:{tmp_path}/jobs.sqlite" in made.stderr
    listed = command("keys", "list").stdout
    assert identifier in listed
    assert '{"weight": 2.0, "max_active": 10}' in listed
    assert key not in listed
    assert (tmp_path / "jobs.sqlite").stat().st_mode & 0o077 == 0
    assert command("keys", "revoke", identifier).returncode == 0
    assert identifier not in command("keys", "list").stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:/srv/jobs.sqlite", "sqlite:/srv/jobs.sqlite"),
        ("sqlite:jobs.sqlite", f"sqlite:{Path.cwd()}/jobs.sqlite"),
        ("rediss://:secret@redis:6379/0?password=secret", "rediss://redis:6379/0"),
    ],
)
def test_a_store_is_shown_without_its_password(url, shown):
    assert store_shown(url) == shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["keys", "create", "Not A Name"], "tenant: must be lower-case letters"),
        (["keys", "create", "shop", "--weight", "0"], "weight: Input should be greater than 0"),
        (["keys", "revoke", "nothing"], "There is no key nothing"),
        (["serve", "--role", "boss"], "gateway settings: role: Input should be 'all'"),
        (["serve", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["serve", "--store-url", "mysql:x"], "store_url: must be sqlite:PATH"),
        (["serve", "--results-url", "ftp://x"], "results_url: "),
        (["drain"], "No gateway is running"),
    ],
)
def test_what_a_person_can_put_right_is_one_sentence(arguments, sentence, command):
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence), done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_a_port_that_is_taken_is_one_sentence(command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = command("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith(f"127.0.0.1:{port} cannot be listened at: Address already in use")
    assert done.stderr.strip().count("\n") == 0


def test_a_store_that_is_taken_is_one_sentence(command, served):
    served()
    done = command("serve", "--port", str(free_port()))
    assert done.returncode == 1
    assert "belongs to another gateway" in done.stderr
    assert done.stderr.strip().count("\n") == 0


def test_keys_can_be_made_while_the_gateway_runs(command, served):
    _, client = served(GATEWAY_AUTH="on")
    assert client.get("/models").status_code == 401
    made = command("keys", "create", "shop")
    key = made.stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    assert client.get("/models", headers=headers).status_code == 200
    (identifier,) = re.findall(r"Key (\w+) of shop", made.stderr)
    command("keys", "revoke", identifier)
    assert client.get("/models", headers=headers).status_code == 401


def test_a_drain_ends_the_gateway_in_good_order(command, served):
    process, client = served()
    assert client.get("/readyz").status_code == 503
    done = command("drain")
    assert done.returncode == 0, done.stderr
    assert process.wait(20) == 0
    logged = process.stderr.read()
    assert "SIGTERM: draining" in logged
    assert "Traceback" not in logged
    assert command("drain").returncode == 1


async def test_with_a_shared_store_models_are_kept_beside_the_pid_file(
    served, tmp_path, redis_server
):
    """A container may write there, and not into the folder that it runs in."""
    async with faked() as fake:
        endpoint = fake.settings().model_dump_json(include={"inference", "management"})
        variables = {"GATEWAY_ENDPOINTS": f"[{endpoint}]", "GATEWAY_STORE_URL": redis_server.url}
        pid_file = tmp_path / "elsewhere" / "gateway.pid"
        await asyncio.to_thread(partial(served, "--pid-file", str(pid_file), **variables))
        await until((pid_file.parent / "models.json").exists)
        assert not (tmp_path / "run").exists()


async def never_done(asked: Asked, _: int) -> None:
    await asked.steps(1, 10_000, 0.05)


async def test_a_signal_hands_back_what_runs_and_sends_followers_away(served, command):
    async with faked() as fake:
        fake.script = never_done
        endpoint = fake.settings().model_dump_json(include={"inference", "management"})
        variables = {"GATEWAY_ENDPOINTS": f"[{endpoint}]", "GATEWAY_DRAIN_S": "3"}
        process, client = await asyncio.to_thread(partial(served, **variables))
        await until(lambda: client.get("/readyz").status_code == 200)
        made = await asyncio.to_thread(partial(client.post, "/generate", json={"prompt": "heart"}))
        job = made.json()["job_id"]
        heard = asyncio.create_task(asyncio.to_thread(events, client, job))
        await until(lambda: client.get(f"/jobs/{job}").json()["step"] > 0)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert "event: progress" in await heard
        assert "event: completed" not in await heard

        # Handed back by nobody's fault: the attempt is taken back, and the next one ends it.
        fake.script = draw
        _, again = await asyncio.to_thread(partial(served, **variables))
        await until(lambda: again.get(f"/jobs/{job}").json()["status"] == "completed")
        assert again.get(f"/jobs/{job}").json()["attempts"] == 1


def events(client: httpx2.Client, job: str) -> str:
    """What a follower hears until the gateway lets it go."""
    with client.stream("GET", f"/jobs/{job}/events", timeout=30) as stream:
        return "".join(stream.iter_text())


async def until(holds: Callable[[], bool], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def test_two_signals_end_at_once(served):
    process, _ = served()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.wait(20)


def test_logs_hold_no_query_and_no_ticket(served):
    process, client = served()
    client.get("/jobs/none/events", params={"ticket": "secret-ticket"})
    client.get("/jobs", params={"status": "secret-query"})
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    logged = process.stderr.read()
    assert "GET /jobs 422" in logged
    assert "secret" not in logged
