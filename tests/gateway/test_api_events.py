"""Watching jobs over a real server: event streams and WebSockets."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api_rig import Server, claim, finish, make_gateway, picture, serving
from diffusion_gateway import following
from diffusion_gateway.api import events as events_module
from diffusion_gateway.job import Job
from diffusion_gateway.results import preview_key
from diffusion_gateway.tenants import TenantSettings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(make_gateway(tmp_path)) as made:
        yield made


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


def test_a_stream_tells_all_until_the_end(server):
    job_id = submit(server, num_inference_steps=4)
    with stream(server, f"/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        told = read_stream(answer)
        assert next(told)["data"]["status"] == "pending"
        draw(server, steps=4, previews=(2,))
        heard = list(told)
    kinds = [event["event"] for event in heard]
    assert kinds == [
        "status",
        "progress",
        "progress",
        "preview",
        "progress",
        "progress",
        "completed",
    ]
    assert [event["data"]["step"] for event in heard[1:]] == [1, 2, 2, 3, 4, 4]
    ids = [int(event["id"]) for event in heard]
    assert ids == sorted(set(ids))
    document = heard[-1]["data"]
    assert document["status"] == "completed"
    assert httpx2.get(document["image_url"]).status_code == 200
    preview = httpx2.get(heard[3]["data"]["url"])
    assert preview.content == picture(2, kind="JPEG")
    assert "immutable" not in preview.headers["cache-control"]


def test_a_stream_resumes_after_the_last_event(server):
    job_id = submit(server, num_inference_steps=6)
    with stream(server, f"/jobs/{job_id}/events") as answer:
        told = read_stream(answer)
        job = begin(server, steps=5)
        heard = [next(told) for _ in range(7)]
    middle = heard[3]["id"]
    for path, headers in (
        ("events", {"last-event-id": middle}),
        (f"events?last_event_id={middle}", {}),
    ):
        with stream(server, f"/jobs/{job_id}/{path}", **headers) as answer:
            told = read_stream(answer)
            assert [next(told) for _ in range(3)] == heard[4:]
    server.run(finish(server.gateway, job))
    (end,) = whole_stream(server, f"/jobs/{job_id}/events", **{"last-event-id": middle})
    assert end["event"] == "completed"
    headers = {"last-event-id": end["id"]}
    answer = httpx2.get(f"{server.url}/jobs/{job_id}/events", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "\u00b2"])
def test_a_last_event_id_that_is_none_is_refused(server, value):
    job_id = submit(server)
    path = f"{server.url}/jobs/{job_id}/events"
    answer = httpx2.get(path, headers={"last-event-id": value.encode("latin-1")})
    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")
    assert httpx2.get(path, params={"last_event_id": value}).status_code == 422


def test_previews_come_within_the_stream_where_asked(server):
    job_id = submit(server)
    with stream(server, f"/jobs/{job_id}/events?previews=inline") as answer:
        draw(server, steps=2, previews=(1,))
        heard = list(read_stream(answer))
    (preview,) = [event["data"] for event in heard if event["event"] == "preview"]
    assert base64.b64decode(preview["image"]) == picture(1, kind="JPEG")


@pytest.mark.parametrize("query", ["previews=yes", "preview=inline", "last_event_id=-1"])
def test_wrong_parameters_of_watchers_are_refused(server, query):
    job_id = submit(server)
    assert httpx2.get(f"{server.url}/jobs/{job_id}/events?{query}").status_code == 422
    with pytest.raises(InvalidStatus) as refused:
        socket_of(server, job_id, f"?{query}")
    assert refused.value.response.status_code == 422


def test_a_silent_stream_has_heartbeats_and_the_new_place(server, monkeypatch):
    monkeypatch.setattr(following, "TICK_S", 0.05)
    first, second = submit(server), submit(server)
    with stream(server, f"/jobs/{second}/events") as answer:
        told = read_stream(answer)
        assert next(told)["data"]["queue_position"] == 2
        assert next(told) == {"comment": "heartbeat"}
        httpx2.delete(f"{server.url}/jobs/{first}")
        moved = next(event for event in told if "data" in event)
        assert moved["data"]["queue_position"] == 1
        assert "id" not in moved
        httpx2.delete(f"{server.url}/jobs/{second}")
        assert [event for event in told if "data" in event][-1]["event"] == "cancelled"


def test_a_socket_tells_the_guides_words(server):
    job_id = submit(server, num_inference_steps=4)
    with socket_of(server, job_id) as connection:
        first = json.loads(connection.recv())
        assert (first["status"], first["progress"], first["queue_position"]) == ("pending", 0.0, 1)
        draw(server, steps=4, previews=(3,))
        heard = messages_of(connection)
        assert connection.protocol.close_code == 1000
    assert [message["status"] for message in heard] == ["processing"] * 6 + ["completed"]
    assert [message["progress"] for message in heard] == [0.0, 0.25, 0.5, 0.75, 0.75, 1.0, 1.0]
    assert heard[-1]["image_url"]
    assert {"event", "job_id", "step", "steps"} <= set.intersection(*map(set, heard))


def test_a_socket_of_an_ended_job_tells_the_end(server):
    job_id = submit(server)
    draw(server, steps=1)
    with socket_of(server, job_id) as connection:
        heard = messages_of(connection)
    assert [message["status"] for message in heard] == ["completed", "completed"]


def test_a_socket_resumes_too(server):
    job_id = submit(server, num_inference_steps=5)
    with socket_of(server, job_id) as connection:
        job = begin(server, steps=5)
        heard = [json.loads(connection.recv()) for _ in range(7)]
        with socket_of(server, job_id, f"?last_event_id={heard[3]['id']}") as second:
            rest = [json.loads(second.recv()) for _ in range(4)]
        assert rest[1:] == heard[4:]
        server.run(finish(server.gateway, job))


def test_cancelling_ends_every_watcher(server):
    job_id = submit(server)
    with (
        socket_of(server, job_id) as connection,
        stream(server, f"/jobs/{job_id}/events") as answer,
    ):
        connection.recv()
        httpx2.delete(f"{server.url}/jobs/{job_id}")
        assert messages_of(connection)[-1]["status"] == "cancelled"
        assert list(read_stream(answer))[-1]["data"]["status"] == "cancelled"


def test_forgetting_a_job_ends_its_watchers(server):
    job_id = submit(server)
    with stream(server, f"/jobs/{job_id}/events") as answer:
        told = read_stream(answer)
        next(told)
        httpx2.delete(f"{server.url}/jobs/{job_id}?purge=true")
        assert list(told)[-1]["event"] == "cancelled"


def test_many_watchers_hear_the_same_end(server):
    job_id = submit(server, num_inference_steps=3)
    connections = [socket_of(server, job_id) for _ in range(30)]
    draw(server, steps=3)
    ends = [messages_of(connection)[-1] for connection in connections]
    assert {end["status"] for end in ends} == {"completed"}
    assert watching(server, "websocket") == 0


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


async def key_of(server: Server, tenant: str) -> str:
    return (await server.gateway.tenants.create(tenant, TenantSettings()))[1]


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


async def close_watchers(server: Server) -> None:
    server.gateway.watchers.close()


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
