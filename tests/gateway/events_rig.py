"""Watching jobs by event stream and WebSocket, from outside."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from websockets.sync.client import ClientConnection, connect

from api_rig import Server, claim, finish, picture
from diffusion_gateway.job import Job
from diffusion_gateway.storage.results import preview_key
from diffusion_gateway.tenants import TenantSettings


def submit(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> str:
    answer = httpx2.post(f"{server.url}/generate", json={"prompt": "x", **fields}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def draw(server: Server, *, steps: int = 10, previews: tuple[int, ...] = ()) -> Job:
    """Takes the next job and draws it, with its progress and previews."""
    job = begin(server, steps=steps, previews=previews)
    server.run(finish(server.gateway, job))
    return job


def begin(server: Server, *, steps: int = 10, previews: tuple[int, ...] = ()) -> Job:
    """Takes the next job and does so many steps of it."""
    gateway = server.gateway
    job = server.run(claim(gateway))
    for step in range(1, steps + 1):
        server.run(gateway.store.progress(job, step))
        server.run(gateway.store.publish(job.id, "progress", {"step": step, "steps": job.steps}))
        if step in previews:
            key = preview_key(job.id, step)
            server.run(gateway.results.put(key, picture(step, kind="JPEG"), "image/jpeg"))
            server.run(gateway.store.publish(job.id, "preview", {"step": step, "key": key}))
    return job


def read_stream(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    """Server-sent events as a browser reads them."""
    event: dict[str, Any] = {}
    for line in answer.iter_lines():
        if line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif not line:
            if "data" in event:
                yield event | {"data": json.loads(event["data"])}
            event = {}
        else:
            name, _, value = line.partition(": ")
            event[name] = value


@contextmanager
def stream(server: Server, path: str, **headers: str) -> Iterator[httpx2.Response]:
    with (
        httpx2.Client(timeout=20) as client,
        client.stream("GET", server.url + path, headers=headers) as answer,
    ):
        yield answer


def whole_stream(server: Server, path: str, **headers: str) -> list[dict[str, Any]]:
    with stream(server, path, **headers) as answer:
        assert answer.status_code == 200, answer.read()
        return list(read_stream(answer))


def socket_of(server: Server, job_id: str, query: str = "", **options: Any) -> ClientConnection:
    return connect(f"{server.sockets_url}/ws/jobs/{job_id}{query}", **options)


def messages_of(connection: ClientConnection) -> list[dict[str, Any]]:
    return [json.loads(message) for message in connection]


def watching(server: Server, transport: str) -> float:
    """Watchers as the metrics count them, once those that leave have left."""
    labels = {"transport": transport}
    deadline = time.monotonic() + 10
    while True:
        count = server.gateway.metrics.registry.get_sample_value(
            "diffusion_gateway_watchers", labels
        )
        if not count or time.monotonic() > deadline:
            return count or 0.0
        time.sleep(0.02)


async def key_of(server: Server, tenant: str) -> str:
    return (await server.gateway.tenants.create(tenant, TenantSettings()))[1]


def watchers_now(server: Server) -> float:
    registry = server.gateway.metrics.registry
    return sum(
        registry.get_sample_value("diffusion_gateway_watchers", {"transport": transport}) or 0
        for transport in ("sse", "websocket")
    )


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


async def close_watchers(server: Server) -> None:
    server.gateway.watchers.close()
