"""Bodies without end, faults nobody foresaw, health, and the files of jobs."""

from __future__ import annotations

import http.client
import json
import logging
import resource
import socket
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import pytest

from api_rig import (
    Server,
    claim,
    client_of,
    finish,
    make_gateway,
    picture,
    scripted_model,
    serving,
)
from diffusion_gateway.api import health
from diffusion_gateway.errors import ResultsUnavailableError, StoreUnavailableError

LARGE = 100_000_000


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gateway")
    with serving(make_gateway(folder), http=request.param) as made:
        yield made


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def pieces(size: int) -> Iterator[bytes]:
    piece = b" " * 65536
    for _ in range(size // len(piece)):
        yield piece


@pytest.mark.parametrize("chunked", [False, True])
def test_a_hundred_megabytes_are_refused_and_not_kept(server, chunked):
    before = peak_kb()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"content-type": "application/json"}
    if not chunked:
        headers["content-length"] = str(LARGE // 65536 * 65536)
    connection.request("POST", "/generate", pieces(LARGE), headers, encode_chunked=chunked)
    answer = connection.getresponse()
    document = json.loads(answer.read())
    assert (answer.status, document["code"]) == (413, "body_too_large")
    assert document["bound"] == {"max_bytes": 36_000_000}
    connection.close()
    assert httpx2.get(f"{server.url}/healthz").status_code == 200
    # What a chunked body may hold until the bound is passed, and no more than that twice.
    assert peak_kb() - before < 90_000


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_form_is_bounded_too(server):
    files = {"prompt": (None, "x"), "image": ("a.png", bytes(40_000_000))}
    answer = httpx2.post(f"{server.url}/generate", files=files, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_length_that_is_a_lie_harms_nobody(server):
    """The client promises more than it sends and goes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000\r\n\r\n{"prompt": "x'
        )
    assert httpx2.get(f"{server.url}/jobs").json()["jobs"] == []


async def test_an_unknown_path_and_a_wrong_method_are_problems(client):
    answer = await client.get("/nothing/here")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_path")
    answer = await client.put("/generate")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_fault_that_nobody_foresaw_tells_nothing_of_the_request(
    gateway, client, monkeypatch, caplog
):
    async def broken(fields: dict[str, str], *_: object, **__: object) -> None:
        raise RuntimeError(fields["prompt"])

    monkeypatch.setattr(gateway.intake, "accept", broken)
    caplog.set_level(logging.DEBUG)
    answer = await client.post("/generate", json={"prompt": "my dear secret"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    ours = [record for record in caplog.records if record.name.startswith("diffusion_gateway")]
    assert any("RuntimeError" in record.getMessage() for record in ours)
    assert not any("secret" in record.getMessage() for record in ours)
    assert not any(record.exc_info for record in ours)


async def test_a_store_that_is_down_is_said_and_nothing_is_taken(gateway, client, monkeypatch):
    async def down(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the job store does not answer", retry_after=3)

    monkeypatch.setattr(gateway.store, "submit", down)
    answer = await client.post("/generate", json={"prompt": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


async def test_health_says_that_the_process_lives(client):
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_ready_needs_a_model_a_store_and_the_results(gateway, client, monkeypatch):
    monkeypatch.setattr(health, "_FRESH_S", 0.0)
    assert (await client.get("/readyz")).json() == {"status": "ready"}

    async def down() -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.store, "ping", down)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")

    async def away() -> None:
        raise ResultsUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.results, "ping", away)
        answer = await client.get("/readyz")
        assert answer.json()["code"] == "results_unavailable"
    starting = SimpleNamespace(ready=False, asleep=False)
    gateway.catalog.served = {"cold": replace(scripted_model("cold"), registrations=(starting,))}
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "no model is ready")
    # Others' workers said what they serve, and may be scaled to none: jobs wait until one comes.
    gateway.catalog.served = {"told": replace(scripted_model("told"), registrations=())}
    assert (await client.get("/readyz")).status_code == 200
    gateway.watchers.close()
    assert (await client.get("/readyz")).status_code == 503


async def test_a_gateway_that_only_works_takes_no_jobs(tmp_path):
    async with make_gateway(tmp_path, role="worker") as gateway, client_of(gateway) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/generate", json={"prompt": "x"})).status_code == 404


async def test_a_picture_has_a_tag_and_is_sent_once(gateway, client):
    await client.post("/generate", json={"prompt": "x", "seed": 3})
    await finish(gateway, job := await claim(gateway))
    path = f"/jobs/{job.id}/images/0"
    answer = await client.get(path)
    assert answer.content == picture(3)
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    tag = answer.headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await client.get(path, headers={"if-none-match": given})
        assert (again.status_code, again.content) == (304, b""), given
        assert again.headers["etag"] == tag
    assert (await client.get(path, headers={"if-none-match": '"x"'})).status_code == 200
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(picture(3)))
    for missing in ("images/1", "images/100000", "thumbnails/7", "previews/3"):
        answer = await client.get(f"/jobs/{job.id}/{missing}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_file"), missing
    for wrong in ("images/-1", "images/x", "images/9999999999999999999999"):
        assert (await client.get(f"/jobs/{job.id}/{wrong}")).status_code == 422, wrong


async def test_a_job_without_pictures_has_no_files(gateway, client):
    job_id = (await client.post("/generate", json={"prompt": "x"})).json()["job_id"]
    assert (await client.get(f"/jobs/{job_id}/images/0")).status_code == 404


async def test_several_models_have_their_own_schemas(tmp_path):
    models = scripted_model("a", max_steps=15), scripted_model("b", max_steps=19)
    async with make_gateway(tmp_path, *models) as gateway, client_of(gateway) as client:
        told = (await client.get("/models")).json()["models"]
        schemas = [model["request_schema"]["text-to-image"]["properties"] for model in told]
        assert [schema["num_inference_steps"]["maximum"] for schema in schemas] == [15, 19]
        answer = await client.get("/models?x=1")
        assert answer.status_code == 422


async def test_the_document_describes_every_route(gateway, client):
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    request = document["components"]["schemas"]["GenerateRequest"]
    for name in ("prompt", "image", "priority", "deadline", "webhook", "cache", "model", "seed"):
        assert request["properties"][name]["description"], name
    assert request["additionalProperties"] is False
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            for status, response in operation["responses"].items():
                # Below /v1 errors have OpenAI's form.
                if int(status) >= 400 and not path.startswith("/v1/"):
                    assert list(response["content"]) == ["application/problem+json"], where
    generate = document["paths"]["/generate"]["post"]
    assert set(generate["responses"]) >= {
        "200", "202", "400", "401", "403", "404", "409", "413", "415", "422", "429", "503"
    }  # fmt: skip
    assert set(generate["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert generate["security"] == [{"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    names = {parameter["name"].lower() for parameter in generate["parameters"]}
    assert names == {"idempotency-key", "prefer"}
