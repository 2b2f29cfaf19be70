"""Watching jobs over a real server: event streams and WebSockets."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from api_rig import Server, finish, make_gateway, picture, serving
from diffusion_gateway import following
from events_rig import (
    begin,
    draw,
    messages_of,
    read_stream,
    socket_of,
    stream,
    submit,
    watching,
    whole_stream,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(make_gateway(tmp_path)) as made:
        yield made


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
