"""OpenAI's image API, spoken by its official client over a real server.

The pictures are drawn by a fake: a task that claims jobs from the real store and ends them with
small real image files. Its previews and errors are scripted by the prompt.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from api_rig import Server, make_gateway, scripted_model, serving
from diffusion_core.errors import ModelError
from diffusion_core.limits import Defaults
from diffusion_core.request import RequestSchema
from diffusion_gateway.api.openai_request import preview_interval, translate
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Lane, Result, Status
from diffusion_gateway.results import StoredFile, preview_key
from diffusion_gateway.tenants import TenantSettings

COLOURS = {"PNG": (10, 200, 30), "JPEG": (10, 200, 30), "WEBP": (10, 200, 30)}


class FakeWorker:
    """Not a worker: a task on the gateway's loop that ends jobs, after the previews they ask for.

    A prompt with "fail" fails, one with "hold" is drawn only after `release`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.drawn: list[Job] = []
        self.inputs: dict[str, bytes] = {}
        self.release = threading.Event()

    async def run(self) -> None:
        gateway = self.server.gateway
        while True:
            job = await gateway.store.claim("fake", "emoji", tuple(Lane), 60.0)
            if job is None:
                await asyncio.sleep(0.005)
                continue
            await self._draw(gateway, job)

    async def _draw(self, gateway: Gateway, job: Job) -> None:
        prompt = job.fields["prompt"]
        while "hold" in prompt and not self.release.is_set():
            if (await gateway.store.get(job.id)).status.ended:
                return
            await asyncio.sleep(0.005)
        if "fail" in prompt:
            await gateway.store.end(job, Status.FAILED, error=ModelError("it broke").problem())
            return
        for name, key in job.inputs.items():
            self.inputs[name] = await gateway.results.get(key)
        every = job.fields.get("preview_every")
        for step in range(every, job.steps, every) if every else ():
            key = preview_key(job.id, step)
            await gateway.results.put(key, _file(job, "JPEG"), "image/jpeg")
            await gateway.store.publish(job.id, "preview", {"step": step, "key": key})
            await asyncio.sleep(0.01)
        form = job.fields["output_format"]
        files = [
            StoredFile(_file(job, form.upper()), f"image/{form}", job.fields["seed"] + index)
            for index in range(job.fields["num_images"])
        ]
        result = Result(
            pictures=await gateway.results.store_pictures(job, files),
            identity="identity-of-emoji",
            runtime_identity="runtime-of-emoji",
            device_seconds=0.25,
        )
        await gateway.store.end(job, Status.COMPLETED, result=result)
        self.drawn.append(job)


def _file(job: Job, form: str) -> bytes:
    file = io.BytesIO()
    size = (job.fields["width"], job.fields["height"])
    Image.new("RGB", size, COLOURS[form]).save(file, form)
    return file.getvalue()


@contextmanager
def working(server: Server) -> Iterator[FakeWorker]:
    worker = FakeWorker(server)
    loop = server._server.servers[0].get_loop()
    running = asyncio.run_coroutine_threadsafe(worker.run(), loop)
    try:
        yield worker
    finally:
        running.cancel()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(make_gateway(tmp_path_factory.mktemp("gateway"))) as made:
        yield made


@pytest.fixture
def worker(server: Server) -> Iterator[FakeWorker]:
    with working(server) as made:
        yield made


def client_of(server: Server, key: str = "any", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 20, **options}
    )


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server) as made:
        yield made


def image_of(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def png(size: tuple[int, int], colour: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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


# Streams.


@pytest.mark.parametrize("wanted", [0, 1, 2, 3])
def test_a_stream_brings_partial_images_and_the_picture(
    client: openai.OpenAI, worker: FakeWorker, wanted: int
) -> None:
    stream = client.images.generate(
        prompt="x",
        size="64x64",
        stream=True,
        partial_images=wanted,
        output_format="jpeg",
        extra_body={"num_inference_steps": 10, "seed": 5},
    )
    events = list(stream)
    types = ["image_generation.partial_image"] * wanted + ["image_generation.completed"]
    assert [event.type for event in events] == types
    for index, event in enumerate(events[:-1]):
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == index
        assert image_of(event.b64_json).size == (64, 64)
        assert event.output_format == "jpeg"
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert image_of(last.b64_json).format == "JPEG"
    assert (last.size, last.quality, last.background) == ("64x64", "auto", "opaque")
    assert last.usage.total_tokens == 0


def test_a_stream_of_several_pictures_has_an_event_for_each(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    stream = client.images.generate(prompt="x", n=2, stream=True, extra_body={"seed": 3})
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [event.seed for event in events] == [3, 4]  # type: ignore[union-attr]


def test_a_failure_ends_a_stream_with_an_error(client: openai.OpenAI, worker: FakeWorker) -> None:
    stream = client.images.generate(prompt="fail", stream=True)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert (raised.value.message, raised.value.code) == ("it broke", "model_error")


def test_what_is_wrong_with_a_stream_is_said_before_it_begins(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(prompt="x", stream=True, response_format="url")
    assert raised.value.param == "response_format"
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(
            prompt="x", stream=True, partial_images=1, extra_body={"num_inference_steps": 0}
        )
    assert raised.value.param == "num_inference_steps"


def test_partial_images_of_a_model_without_previews_are_refused(tmp_path: Path) -> None:
    blind = dataclasses.replace(scripted_model(), previews=False)
    with serving(make_gateway(tmp_path, blind)) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            client.images.generate(prompt="x", stream=True, partial_images=1)
        assert raised.value.param == "partial_images"


async def test_the_asynchronous_client_is_served_as_well(
    server: Server, worker: FakeWorker
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0
    ) as client:
        answers = await asyncio.gather(
            *(client.images.generate(prompt="x", extra_body={"seed": n}) for n in range(8))
        )
        seeds = [answer.data[0].seed for answer in answers if answer.data]  # type: ignore[attr-defined]
        assert seeds == list(range(8))
        stream = await client.images.generate(prompt="x", stream=True, partial_images=1)
        types = [event.type async for event in stream]
        assert types[-1] == "image_generation.completed"
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(prompt="")


# Clients that go away.


def _status(server: Server, prompt: str) -> Status | None:
    jobs = server.run(server.gateway.store.list(None, None, None, 100))
    found = [job.status for job in jobs if job.fields["prompt"] == prompt]
    return found[0] if found else None


def test_a_client_that_goes_away_cancels_its_job(server: Server, worker: FakeWorker) -> None:
    with client_of(server) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="hold one", timeout=0.3)
    until(lambda: _status(server, "hold one") is Status.CANCELLED)


def test_a_client_that_leaves_a_stream_cancels_its_job(server: Server, worker: FakeWorker) -> None:
    with client_of(server) as client:
        stream = client.images.generate(prompt="hold two", stream=True)
        until(lambda: _status(server, "hold two") is Status.PROCESSING)
        stream.close()
    until(lambda: _status(server, "hold two") is Status.CANCELLED)


def test_a_job_with_an_idempotency_key_is_found_again(server: Server, worker: FakeWorker) -> None:
    headers = {"Idempotency-Key": "once"}
    with client_of(server) as client:
        with pytest.raises(openai.APITimeoutError):
            client.images.generate(prompt="hold three", timeout=0.3, extra_headers=headers)
        until(lambda: _status(server, "hold three") is Status.PROCESSING)
        worker.release.set()
        answer = client.images.generate(prompt="hold three", extra_headers=headers)
        assert answer.data
        with pytest.raises(openai.ConflictError):
            client.images.generate(prompt="another", extra_headers=headers)
    assert [job.fields["prompt"] for job in worker.drawn] == ["hold three"]


def test_a_job_that_is_cancelled_elsewhere_ends_its_request(
    server: Server, worker: FakeWorker
) -> None:
    def cancel() -> None:
        until(lambda: _status(server, "hold four") is Status.PROCESSING)
        jobs = httpx2.get(f"{server.url}/jobs?status=processing").json()["jobs"]
        httpx2.delete(f"{server.url}/jobs/{jobs[0]['job_id']}")

    thread = threading.Thread(target=cancel)
    thread.start()
    with client_of(server) as client, pytest.raises(openai.APIStatusError) as raised:
        client.images.generate(prompt="hold four")
    thread.join()
    assert raised.value.status_code == 499
    assert raised.value.code == "cancelled"


def test_who_waits_while_the_gateway_ends_is_asked_to_come_back(tmp_path: Path) -> None:
    answers: list[Any] = []
    with serving(make_gateway(tmp_path)) as server:

        def ask(stream: bool) -> None:
            body = {"prompt": "x", "stream": stream}
            answers.append(
                httpx2.post(f"{server.url}/v1/images/generations", json=body, timeout=20)
            )

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (False, True)]
        for thread in threads:
            thread.start()
        store = server.gateway.store
        until(lambda: len(server.run(store.list(None, Status.PENDING, None, 10))) == 2)
        server.run(_close_watchers(server.gateway))
        for thread in threads:
            thread.join()
        assert len(server.run(store.list(None, Status.CANCELLED, None, 10))) == 2
    plain = next(one for one in answers if one.status_code == 503)
    assert plain.json()["error"]["code"] == "overloaded"
    assert plain.headers["retry-after"] == "1"
    streamed = next(one for one in answers if one.status_code == 200)
    assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == "overloaded"


async def _close_watchers(gateway: Gateway) -> None:
    gateway.watchers.close()


# Edits.


def test_a_picture_is_drawn_over(client: openai.OpenAI, worker: FakeWorker) -> None:
    source = png((96, 64), (1, 2, 3))
    answer = client.images.edit(
        image=("fox.png", source, "image/png"),
        prompt="make it blue",
        n=2,
        output_format="webp",
        extra_body={"strength": 0.5, "seed": 11, "num_inference_steps": 8},
    )
    assert answer.data is not None
    assert [image_of(one.b64_json).size for one in answer.data] == [(96, 64)] * 2
    job = worker.drawn[0]
    assert (job.task, job.steps) == ("image-to-image", 4)
    assert (job.fields["strength"], job.fields["seed"]) == (0.5, 11)
    assert worker.inputs == {"image": source}


def test_a_mask_is_turned_into_ours(client: openai.OpenAI, worker: FakeWorker) -> None:
    mask = Image.new("RGBA", (64, 64), (9, 9, 9, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    mask.paste((0, 0, 0, 1), (32, 0, 40, 64))
    file = io.BytesIO()
    mask.save(file, "PNG")
    client.images.edit(
        image=[png((64, 64), (1, 2, 3))], mask=file.getvalue(), prompt="x", size="64x64"
    )
    assert worker.drawn[0].task == "inpainting"
    ours = Image.open(io.BytesIO(worker.inputs["mask_image"]))
    # White only where it was fully transparent.
    assert [ours.getpixel((x, 10)) for x in (0, 31, 32, 63)] == [255, 255, 0, 0]
    assert ours.mode == "L"


def test_an_edit_streams(client: openai.OpenAI, worker: FakeWorker) -> None:
    stream = client.images.edit(
        image=png((64, 64), (1, 2, 3)), prompt="x", stream=True, partial_images=2
    )
    events = list(stream)
    partials = [event.type for event in events[:-1]]
    assert 1 <= len(partials) <= 2
    assert set(partials) == {"image_edit.partial_image"}
    assert events[-1].type == "image_edit.completed"


def test_an_edit_that_cannot_be_is_refused_by_name(client: openai.OpenAI) -> None:
    picture, clear = png((64, 64), (1, 2, 3)), png((64, 64), (0, 0, 0, 0))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("mask", {"image": picture, "mask": picture}),
        ("mask", {"image": picture, "mask": png((32, 64), (0, 0, 0, 0))}),
        ("mask", {"image": picture, "mask": b"no image"}),
        ("mask", {"image": picture, "mask": clear[:-30]}),
        ("image", {"image": b"no image", "mask": clear}),
        ("image", {"image": b"no image"}),
        ("image", {"image": [picture, picture]}),
        ("n", {"image": picture, "n": 5}),
        ("input_fidelity", {"image": picture, "input_fidelity": "high"}),
        ("markup", {"image": picture, "markup": clear}),
        ("quality", {"image": picture, "quality": "low"}),
        ("strength", {"image": picture, "extra_body": {"strength": 2}}),
    ]
    for field, arguments in cases:
        with pytest.raises(openai.BadRequestError) as raised:
            client.images.edit(prompt="x", **arguments)
        assert (raised.value.param, field in raised.value.message) == (field, True)


def test_an_edit_without_a_picture_or_form_is_refused(server: Server) -> None:
    url = f"{server.url}/v1/images/edits"
    answer = httpx2.post(url, files={"prompt": (None, "x")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")
    assert httpx2.post(url, json={"prompt": "x"}).status_code == 415


def test_edits_of_a_model_that_only_generates_are_refused(tmp_path: Path) -> None:
    model = scripted_model()
    can = model.schema.capabilities
    calls = {"text-to-image": can.call_parameters["text-to-image"]}
    narrow = can.model_copy(update={"call_parameters": calls})
    schema = RequestSchema(narrow, model.schema.limits, Defaults())
    one = dataclasses.replace(model, schema=schema)
    with (
        serving(make_gateway(tmp_path, one)) as server,
        client_of(server) as client,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        client.images.edit(image=png((64, 64), (1, 2, 3)), prompt="x")
    assert raised.value.param == "image"


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
