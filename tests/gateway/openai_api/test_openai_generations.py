"""OpenAI's image generations, errors and models, by its official client over a real server."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from api_rig import Server, make_gateway, serving
from diffusion_gateway.api.openai_request import preview_interval, translate
from diffusion_gateway.job import Status
from diffusion_gateway.tenants import TenantSettings
from openai_rig import FakeWorker, client_of, image_of

# Generations.


def test_a_picture_comes_as_base64(client: openai.OpenAI, worker: FakeWorker) -> None:
    answer = client.images.generate(prompt="a red fox", model="emoji", size="96x64")
    assert answer.data is not None
    picture = image_of(answer.data[0].b64_json)
    assert (picture.format, picture.size) == ("PNG", (96, 64))
    assert (answer.size, answer.output_format, answer.background) == ("96x64", "png", "opaque")
    assert abs(answer.created - time.time()) < 60
    assert worker.drawn[0].fields["prompt"] == "a red fox"


def test_several_pictures_come_as_links(
    client: openai.OpenAI, worker: FakeWorker, server: Server
) -> None:
    answer = client.images.generate(
        prompt="a red fox",
        n=3,
        response_format="url",
        output_format="webp",
        output_compression=60,
        extra_body={"seed": 41, "num_inference_steps": 4, "negative_prompt": "blue"},
    )
    assert answer.data is not None
    links = [one.url for one in answer.data]
    assert [image.seed for image in answer.data] == [41, 42, 43]  # type: ignore[attr-defined]
    assert len(set(links)) == 3
    for link in links:
        assert link is not None
        assert link.startswith(server.url)
        assert Image.open(io.BytesIO(httpx2.get(link).content)).format == "WEBP"
    fields = worker.drawn[0].fields
    assert (fields["quality"], fields["num_inference_steps"]) == (60, 4)
    assert (fields["negative_prompt"], fields["seed"]) == ("blue", 41)


def test_every_extension_reaches_the_model(client: openai.OpenAI, worker: FakeWorker) -> None:
    extras: dict[str, Any] = {
        "negative_prompt": "n",
        "num_inference_steps": 5,
        "guidance_scale": 3.5,
        "seed": 9,
        "scheduler": "EulerDiscreteScheduler",
        "clip_skip": 1,
        "embed_prompt": True,
        "priority": "high",
        "deadline": 600,
        "cache": False,
    }
    client.images.generate(prompt="x", extra_body=extras)
    job = worker.drawn[0]
    given = {name: job.fields[name] for name in extras if name in job.fields}
    assert given == {name: value for name, value in extras.items() if name in given}
    assert len(given) == 7
    assert (job.priority, job.deadline is not None) == ("high", True)


def test_neutral_values_pass(client: openai.OpenAI, worker: FakeWorker) -> None:
    client.images.generate(
        prompt="x",
        user="u-1",
        safety_identifier="s-1",
        quality="auto",
        moderation="low",
        background="opaque",
        size="auto",
        n=1,
        output_format="png",
        output_compression=100,
        partial_images=0,
        stream=False,
        style=None,
    )
    client.images.generate(prompt="x", quality="standard", moderation="auto", background="auto")
    assert "u-1" not in worker.drawn[0].model_dump_json()
    assert len(worker.drawn) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quality", "high"),
        ("quality", "hd"),
        ("background", "transparent"),
        ("style", "vivid"),
        ("moderation", "none"),
        ("size", "64"),
        ("size", "0x64"),
        ("size", "60x64"),
        ("size", "4096x64"),
        ("n", 0),
        ("n", 5),
        ("n", "2"),
        ("output_format", "gif"),
        ("output_compression", 50),
        ("output_compression", 101),
        ("response_format", "binary"),
        ("partial_images", 2),
        ("partial_images", 4),
        ("frame_count", 4),
        ("num_images", 2),
        ("width", 64),
        ("steps", 4),
        ("seed", -1),
        ("num_inference_steps", 1000),
        ("scheduler", "no such"),
        ("strength", 0.5),
        ("checkpoint", "AA=="),
        ("timeout_s", 3),
        ("image", "AAAA"),
        ("prompt", ""),
        ("prompt", 7),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, field: str, value: Any
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(prompt="x", extra_body={field: value})
    error = raised.value
    assert (error.param, error.type, error.code) == (
        field,
        "invalid_request_error",
        "invalid_field",
    )
    assert field in error.message
    assert raised.value.response.headers["content-type"] == "application/json"


def test_a_prompt_is_needed(server: Server) -> None:
    answer = httpx2.post(f"{server.url}/v1/images/generations", json={})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


# Errors.


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.images.generate(prompt="x", model="dall-e-3")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_job_that_fails_fails_its_request_once(server: Server, worker: FakeWorker) -> None:
    with (
        client_of(server, max_retries=2) as client,
        pytest.raises(openai.InternalServerError, match="it broke") as raised,
    ):
        client.images.generate(prompt="fail, please")
    assert (raised.value.code, raised.value.type) == ("model_error", "server_error")
    jobs = server.run(server.gateway.store.list(None, Status.FAILED, None, 100))
    assert len([job for job in jobs if job.fields["prompt"] == "fail, please"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1/models/none", 404)],
)
def test_the_frameworks_own_errors_have_the_form_too(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = httpx2.request(method, server.url + path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_bodies_that_are_none_are_refused_in_the_form(server: Server) -> None:
    url = f"{server.url}/v1/images/generations"
    large = b'{"prompt": "' + b"x" * server.gateway.settings.max_body_bytes + b'"}'
    json_type = {"Content-Type": "application/json"}
    for body, headers, status in (
        (b"{", json_type, 400),
        (b"x", {"Content-Type": "text/plain"}, 415),
        (large, json_type, 413),
        (b"{}", {**json_type, "Host": "evil.example"}, 421),
    ):
        answer = httpx2.post(url, content=body, headers=headers)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert httpx2.post(url, data={"prompt": "x"}, files={"a": b"x"}).status_code == 415


def test_keys_rates_and_full_queues_are_told_as_openai_tells_them(tmp_path: Path) -> None:
    gateway = make_gateway(tmp_path, auth="on", max_waiting=1)
    with serving(gateway) as server:
        settings = TenantSettings(requests_per_second=0.001, burst=2)
        _, key = server.run(gateway.tenants.create("a", settings))
        with client_of(server, "wrong") as client:
            with pytest.raises(openai.AuthenticationError) as wrong:
                client.models.list()
            assert wrong.value.code == "invalid_api_key"
        with client_of(server, key) as client:
            assert [model.id for model in client.models.list()] == ["emoji"]
            with pytest.raises(openai.APITimeoutError):
                client.images.generate(prompt="x", timeout=0.2)
            _, other = server.run(gateway.tenants.create("b", TenantSettings()))
            first = httpx2.post(
                f"{server.url}/generate",
                json={"prompt": "x"},
                headers={"Authorization": f"Bearer {other}"},
            )
            assert first.status_code == 202
            with pytest.raises(openai.InternalServerError) as full:
                client.images.generate(prompt="x")
            assert (full.value.status_code, full.value.code) == (503, "queue_full")
            assert full.value.response.headers["retry-after"]
            with pytest.raises(openai.RateLimitError) as often:
                client.images.generate(prompt="x")
            assert often.value.code == "rate_limit_exceeded"
            assert often.value.response.headers["retry-after"]


# Models.


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object) == ("emoji", "model")
    assert client.models.retrieve("emoji").id == "emoji"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("other")
    assert raised.value.code == "model_not_found"


# Parts.


def test_previews_never_outnumber_what_is_wanted() -> None:
    for wanted in (1, 2, 3):
        for total in range(1, 101):
            every = preview_interval(total, wanted)
            assert len(range(every, total, every)) <= wanted
            if total > wanted * (wanted + 1):
                assert len(range(every, total, every)) == wanted


def test_null_is_as_good_as_left_out() -> None:
    optional = dict.fromkeys(("model", "n", "size", "quality", "style", "stream", "seed"))
    asked = translate({"prompt": "x", **optional}, edit=False, form=False)
    assert asked.fields == {"prompt": "x"}
