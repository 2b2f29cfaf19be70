"""Who may watch a job, how many may, and what becomes of those who leave, stall or come back."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api_rig import Server, claim, finish, make_gateway, serving
from diffusion_gateway.api import events as events_module
from diffusion_gateway.job import Job
from diffusion_gateway.storage.results import preview_key
from events_rig import (
    close_watchers,
    key_of,
    messages_of,
    read_stream,
    socket_of,
    stream,
    submit,
    wait_until,
    watchers_now,
    watching,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(make_gateway(tmp_path)) as made:
        yield made


def test_a_watcher_that_leaves_is_noticed(server):
    job_id = submit(server)
    with stream(server, f"/jobs/{job_id}/events") as answer:
        next(read_stream(answer))
    assert watching(server, "sse") == 0
    connection = socket_of(server, job_id)
    connection.recv()
    connection.socket.shutdown(socket.SHUT_RDWR)
    assert watching(server, "websocket") == 0


def test_places_for_watchers_are_bounded(tmp_path):
    with serving(make_gateway(tmp_path, max_watchers=2)) as server:
        job_id = submit(server)
        with socket_of(server, job_id) as first, socket_of(server, job_id) as second:
            first.recv(), second.recv()
            refused = httpx2.get(f"{server.url}/jobs/{job_id}/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            with pytest.raises(ConnectionClosed) as closed, socket_of(server, job_id) as third:
                third.recv()
            assert closed.value.rcvd.code == 1013
            # Waiting for a job does not need a place: the answer is 202, as after a wait.
            answer = httpx2.post(
                f"{server.url}/generate", json={"prompt": "x"}, headers={"prefer": "wait=30"}
            )
            assert answer.status_code == 202


def test_one_tenant_cannot_take_every_place(tmp_path):
    with serving(make_gateway(tmp_path, host="0.0.0.0", max_watchers=4)) as server:
        ours, theirs = (
            {"authorization": f"Bearer {server.run(key_of(server, name))}"}
            for name in ("ours", "theirs")
        )
        mine, other = submit(server, ours), submit(server, theirs)
        open_ones = [socket_of(server, mine, additional_headers=ours) for _ in range(2)]
        for connection in open_ones:
            connection.recv()
        with (
            pytest.raises(ConnectionClosed),
            socket_of(server, mine, additional_headers=ours) as third,
        ):
            third.recv()
        with socket_of(server, other, additional_headers=theirs) as connection:
            assert json.loads(connection.recv())["status"] == "pending"
        for connection in open_ones:
            connection.close()


def test_a_watcher_that_never_reads_takes_nothing_from_the_others(tmp_path, monkeypatch):
    """It is let go; what it did not read is bounded; the worker and another watcher go on."""
    monkeypatch.setattr(events_module, "PATIENCE_S", 1.0)
    monkeypatch.setattr(events_module, "SLOW_S", 0.5)
    with serving(make_gateway(tmp_path)) as server:
        job_id = submit(server, num_inference_steps=50)
        lazy = [silent_stream(server, job_id), silent_socket(server, job_id)]
        with socket_of(server, job_id) as reader:
            heard: list[dict[str, Any]] = []
            reading = threading.Thread(target=lambda: heard.extend(messages_of(reader)))
            reading.start()
            job = server.run(claim(server.gateway))
            server.run(flood(server, job))
            wait_until(lambda: watchers_now(server) <= 1)
            assert server.run(finish(server.gateway, job))
            reading.join(20)
        assert heard[-1]["status"] == "completed"
        for connection in lazy:
            connection.close()


def silent_stream(server: Server, job_id: str) -> socket.socket:
    """A client of the event stream that asks, with previews inline, and reads nothing."""
    connection = narrow_connection(server)
    request = f"GET /jobs/{job_id}/events?previews=inline HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(request.encode())
    return connection


def silent_socket(server: Server, job_id: str) -> socket.socket:
    connection = narrow_connection(server)
    connection.sendall(
        f"GET /ws/jobs/{job_id}?previews=inline HTTP/1.1\r\nHost: localhost\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return connection


def narrow_connection(server: Server) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    return connection


async def flood(server: Server, job: Job) -> None:
    """Previews of some 100 kB, more of them than any buffer between takes."""
    gateway = server.gateway
    key = preview_key(job.id, 1)
    await gateway.results.put(key, bytes(100_000), "image/jpeg")
    for step in range(1, 101):
        await gateway.store.publish(job.id, "preview", {"step": step, "key": key})


def test_a_client_that_talks_on_a_socket_is_let_go(server):
    job_id = submit(server)
    with socket_of(server, job_id) as connection:
        for _ in range(200):
            try:
                connection.send("hello")
            except ConnectionClosed:
                break
        with pytest.raises(ConnectionClosed) as closed:
            list(iter(connection.recv, None))
        assert closed.value.rcvd.code == 1008


def test_sockets_need_a_key_or_a_ticket(tmp_path):
    with serving(make_gateway(tmp_path, host="0.0.0.0")) as server:
        headers = {"authorization": f"Bearer {server.run(key_of(server, 'acme'))}"}
        job_id = submit(server, headers)
        made = httpx2.post(f"{server.url}/tickets", json={"job_id": job_id}, headers=headers)
        assert (made.status_code, made.json()["expires_in"]) == (201, 60)
        ticket = made.json()["ticket"]
        with socket_of(server, job_id, f"?ticket={ticket}") as connection:
            assert json.loads(connection.recv())["status"] == "pending"
        with stream(server, f"/jobs/{job_id}/events?ticket={ticket}") as answer:
            assert answer.status_code == 200
        for query in ("", "?ticket=", f"?ticket={ticket[:-1]}", "?ticket=a~b~c"):
            with pytest.raises(InvalidStatus) as refused:
                socket_of(server, job_id, query)
            assert refused.value.response.status_code == 401
            assert json.loads(refused.value.response.body)["code"] == "unauthorized"
        other = submit(server, headers)
        with pytest.raises(InvalidStatus):
            socket_of(server, other, f"?ticket={ticket}")


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_sockets_of_other_origins_are_refused(server, origin):
    job_id = submit(server)
    with pytest.raises(InvalidStatus) as refused:
        socket_of(server, job_id, origin=origin)
    assert refused.value.response.status_code == 403
    answer = httpx2.get(f"{server.url}/jobs/{job_id}/events", headers={"origin": origin})
    assert answer.status_code == 403
    with socket_of(server, job_id, origin=server.url) as connection:
        assert connection.recv()


def test_an_unknown_job_has_no_socket(server):
    with pytest.raises(InvalidStatus) as refused:
        socket_of(server, "0" * 32)
    assert refused.value.response.status_code == 404


def test_watchers_are_told_to_come_back_when_the_gateway_ends(tmp_path):
    with serving(make_gateway(tmp_path)) as server:
        job_id = submit(server)
        with (
            socket_of(server, job_id) as connection,
            stream(server, f"/jobs/{job_id}/events") as answer,
        ):
            connection.recv()
            told = read_stream(answer)
            next(told)
            server.run(close_watchers(server))
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv()
            assert closed.value.rcvd.code == 1012
            assert [event for event in told if "data" in event] == []
        refused = httpx2.get(f"{server.url}/jobs/{job_id}/events")
        assert refused.status_code == 503


def test_logs_hold_no_query_and_no_prompt(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(make_gateway(tmp_path)) as server:
        job_id = submit(server, prompt="my dear secret")
        httpx2.get(f"{server.url}/jobs?secret=1")
        httpx2.get(f"{server.url}/secr%0aet")
        with socket_of(server, job_id, "?ticket=secret") as connection:
            connection.recv()
        httpx2.post(f"{server.url}/generate", json={"prompt": "my dear secret", "width": 1})
        httpx2.delete(f"{server.url}/jobs/{job_id}?purge=true")
    names = ("diffusion_gateway", "uvicorn")
    ours = [record for record in caplog.records if record.name.startswith(names)]
    told = "\n".join(record.getMessage() for record in ours)
    assert f"DELETE /jobs/{job_id} 204" in told
    assert f"/ws/jobs/{job_id}" in told
    assert "secret" not in told
    assert "/secr%0Aet 404" in told
