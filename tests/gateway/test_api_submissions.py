"""Submitting: what is taken, kept, refused and repeated, over the real store."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx2
import pytest

from api_rig import (
    claim,
    client_of,
    finish,
    make_gateway,
    picture,
    scripted_model,
)
from diffusion_gateway.api.schemas import JobDocument
from diffusion_gateway.job import Lane
from jobs_rig import problem, submit


async def test_a_job_from_its_submission_to_its_picture(client, gateway):
    accepted = await submit(client, seed=7, num_images=2)
    assert accepted["status"] == "pending"
    assert accepted["queue_position"] == 1
    path = f"/jobs/{accepted['job_id']}"

    job = await claim(gateway)
    await gateway.store.progress(job, 5)
    running = (await client.get(path)).json()
    assert (running["status"], running["step"], running["progress"]) == ("processing", 5, 0.5)
    assert "queue_position" not in running

    assert await finish(gateway, job)
    done = (await client.get(path)).json()
    JobDocument.model_validate(done)
    assert (done["status"], done["progress"], done["seed"]) == ("completed", 1.0, 7)
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert done["image_url"] == done["images"][0]["url"]
    assert (await client.get(done["images"][1]["url"])).content == picture(8)


async def test_the_location_is_the_job(client):
    answer = await client.post("/generate", json={"prompt": "red heart"})
    assert answer.headers["location"] == answer.json()["links"]["self"]
    assert (await client.get(answer.headers["location"])).status_code == 200


async def test_a_seed_is_drawn_and_told_where_none_was_named(client, gateway):
    first, second = await submit(client), await submit(client)
    assert first["seed"] != second["seed"]
    assert max(first["seed"], second["seed"]) < 2**53
    assert not (await gateway.store.get(first["job_id"])).seeded
    assert (await gateway.store.get((await submit(client, seed=3))["job_id"])).seeded


async def test_what_is_kept_is_a_request_the_model_takes(client, gateway):
    accepted = await submit(client, negative_prompt=None, preview_every=2)
    job = await gateway.store.get(accepted["job_id"])
    parsed = scripted_model().schema.parse_json(job.fields)
    assert parsed.seed == accepted["seed"]
    assert parsed.num_inference_steps == 10 == job.steps
    assert job.work == 10 * 64 * 64
    assert parsed.preview_every == 2


async def test_priorities_and_deadlines_are_kept(client, gateway):
    accepted = await submit(client, priority="high", deadline=60)
    job = await gateway.store.get(accepted["job_id"])
    assert job.lane is Lane.URGENT
    assert job.deadline == pytest.approx(job.submitted_at + 60)
    await submit(client)
    assert (await submit(client, priority="high"))["queue_position"] == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "x", "num_inference_steps": 51}, "num_inference_steps"),
        ({"prompt": "x", "num_inference_steps": "20"}, "num_inference_steps"),
        ({"prompt": "x", "width": 63}, "width"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "steps": 3}, "steps"),
        ({"prompt": "x", "stream": True}, "stream"),
        ({"prompt": "x", "timeout_s": 3}, "timeout_s"),
        ({"prompt": "x", "checkpoint": ""}, "checkpoint"),
        ({"prompt": "x", "checkpoint_every": 3}, "checkpoint_every"),
        ({"prompt": "x", "priority": "urgent"}, "priority"),
        ({"prompt": "x", "deadline": 0}, "deadline"),
        ({"prompt": "x", "deadline": -1}, "deadline"),
        ({"prompt": "x", "deadline": "5"}, "deadline"),
        ({"prompt": "x", "deadline": True}, "deadline"),
        ({"prompt": "x", "cache": "no"}, "cache"),
        ({"prompt": "x", "model": 3}, "model"),
        ({"prompt": "x", "webhook": "http://example.org"}, "webhook"),
        ({"prompt": "x", "webhook": {"url": "ftp://example.org"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://a:b@c.org"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://c.org:99999"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://c.org", "events": []}}, "webhook.events"),
        ({"prompt": "x", "webhook": {"url": "http://127.0.0.1/"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://[::1]:9000/"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "http://169.254.169.254/"}}, "webhook.url"),
        ({"prompt": "x", "webhook": {"url": "https://localhost/"}}, "webhook.url"),
        ({"prompt": "x", "controlnet": "canny"}, "controlnet"),
        ({"prompt": "x", "image": "!!"}, "image"),
        ({}, "prompt"),
    ],
)
async def test_a_wrong_field_is_named_and_its_value_is_not_repeated(client, fields, field):
    answer = await client.post("/generate", json={**fields, "negative_prompt": "SECRET"})
    document = problem(answer, 422, field)
    assert document["code"] == "invalid_field"
    assert "SECRET" not in answer.text


async def test_a_key_that_is_no_name_is_not_repeated(client):
    answer = await client.post("/generate", json={"prompt": "x", "a secret sentence": 1})
    assert "secret" not in json.dumps(problem(answer, 422, "(unprintable name)"))


async def test_a_value_of_a_wrong_kind_is_not_repeated(client):
    answer = await client.post("/generate", json={"prompt": ["my secret"], "model": "emoji"})
    problem(answer, 422, "prompt")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"prompt"',
        b'{"prompt": "x", "prompt": "y"}',
        b'{"prompt": "x", "guidance_scale": NaN}',
        b'{"prompt": "x", "deadline": Infinity}',
        b'{"prompt": "x", "webhook": {"url": "http://a.org", "url": "http://b.org"}}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ],
)
async def test_a_body_that_is_no_json_object_is_malformed(client, body):
    answer = await client.post(
        "/generate", content=body, headers={"content-type": "application/json"}
    )
    problem(answer, 400)


@pytest.mark.parametrize(
    "value", ['"\\ud800"', "1e999", "-1e999", "18446744073709551616", "[[[[]]]]"]
)
@pytest.mark.parametrize("field", ["prompt", "seed", "deadline", "guidance_scale", "webhook"])
async def test_odd_values_are_refused_by_field(client, field, value):
    fields = {"prompt": '"x"', field: value}
    body = "{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}"
    answer = await client.post(
        "/generate", content=body.encode(), headers={"content-type": "application/json"}
    )
    problem(answer, 422, field)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": ""},
    ],
)
async def test_other_content_types_are_refused(client, headers):
    problem(await client.post("/generate", content=b"{}", headers=headers), 415, "Content-Type")


async def test_compressed_bodies_are_refused(client):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = await client.post("/generate", content=b"{}", headers=headers)
    problem(answer, 415, "Content-Encoding")


async def test_a_body_in_utf8_may_say_so(client):
    headers = {"content-type": "application/json; charset=UTF-8"}
    answer = await client.post("/generate", content=b'{"prompt": "\xc3\xa9"}', headers=headers)
    assert answer.status_code == 202


async def test_an_image_comes_as_base64_or_as_a_file(client, gateway):
    data = picture(9)
    accepted = await submit(client, image=base64.b64encode(data).decode(), strength=0.5)
    job = await gateway.store.get(accepted["job_id"])
    assert (job.task, job.steps) == ("image-to-image", 5)
    assert await gateway.results.get(job.inputs["image"]) == data
    assert "image" not in job.fields

    answer = await client.post(
        "/generate",
        data={"prompt": "x", "strength": "0.5", "seed": "4", "priority": "low"},
        files={"image": ("a.png", data), "mask_image": ("b.png", picture(1))},
    )
    assert answer.status_code == 202, answer.text
    job = await gateway.store.get(answer.json()["job_id"])
    assert (job.task, job.lane, job.fields["seed"]) == ("inpainting", Lane.LOW, 4)
    assert await gateway.results.get(job.inputs["image"]) == data


async def test_control_images_and_reference_pictures_are_kept_for_the_job(client, gateway):
    edges, style = picture(9), picture(3)
    answer = await client.post(
        "/generate",
        data={"prompt": "x", "controlnet": "depth", "control_guidance_end": "0.5"},
        files={"control_image": ("a.png", edges), "ip_adapter_image": ("b.png", style)},
    )
    assert answer.status_code == 202, answer.text
    job = await gateway.store.get(answer.json()["job_id"])
    assert job.task == "text-to-image"
    assert await gateway.results.get(job.inputs["control_image"]) == edges
    assert await gateway.results.get(job.inputs["ip_adapter_image"]) == style
    assert (job.fields["controlnet"], job.fields["control_guidance_end"]) == ("depth", 0.5)
    assert not {"control_image", "ip_adapter_image"} & job.fields.keys()


async def test_forms_take_webhooks_as_json_and_refuse_what_is_odd(client):
    webhook = json.dumps({"url": "http://example.org/hook", "events": ["start"]})
    part = {"prompt": (None, "x"), "webhook": (None, webhook), "deadline": (None, "60")}
    assert (await client.post("/generate", files=part)).status_code == 202
    answer = await client.post("/generate", files={"prompt": (None, "x"), "webhook": (None, "{")})
    problem(answer, 422, "webhook")
    answer = await client.post("/generate", files={"prompt": ("a.txt", b"x")})
    problem(answer, 422, "prompt")
    answer = await client.post("/generate", files={"priority": ("a.txt", b"x")})
    problem(answer, 422, "priority")
    twice = [("prompt", (None, "x")), ("prompt", (None, "y"))]
    problem(await client.post("/generate", files=twice), 400, "prompt")


async def test_a_form_that_breaks_off_is_malformed(client):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nred'
    problem(await client.post("/generate", content=body, headers=headers), 422, "prompt")
    headers = {"content-type": "multipart/form-data"}
    problem(await client.post("/generate", content=body, headers=headers), 400)


async def test_a_refused_submission_leaves_no_files(tmp_path):
    async with make_gateway(tmp_path, max_waiting=1) as gateway, client_of(gateway) as client:
        await submit(client)
        image = base64.b64encode(picture()).decode()
        answer = await client.post("/generate", json={"prompt": "x", "image": image})
        assert problem(answer, 503)["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        assert await gateway.results.sweep(now=2**40) == 0


async def test_the_model_must_be_named_only_where_there_are_several(tmp_path):
    models = scripted_model("emoji"), scripted_model("sdxl")
    async with make_gateway(tmp_path, *models) as gateway, client_of(gateway) as client:
        problem(await client.post("/generate", json={"prompt": "x"}), 422, "model")
        answer = await client.post("/generate", json={"prompt": "x", "model": "a secret"})
        assert "secret" not in json.dumps(problem(answer, 404, "model"))
        assert (await submit(client, model="sdxl"))["model"] == "sdxl"


async def test_without_a_model_nothing_is_taken(tmp_path):
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        gateway.catalog.served.clear()
        answer = await client.post("/generate", json={"prompt": "x"})
        problem(answer, 503)
        assert answer.headers["retry-after"]


async def test_a_repeated_submission_finds_the_first_ones_job(client, gateway):
    headers = {"idempotency-key": "order-17"}
    first = await client.post("/generate", json={"prompt": "x", "width": 64}, headers=headers)
    again = await client.post("/generate", json={"width": 64, "prompt": "x"}, headers=headers)
    assert first.json()["job_id"] == again.json()["job_id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = await client.post("/generate", json={"prompt": "y"}, headers=headers)
    assert problem(other, 409, "Idempotency-Key")["code"] == "idempotency_conflict"
    assert len((await client.get("/jobs")).json()["jobs"]) == 1


async def test_a_repeated_form_is_known_by_its_files(client):
    headers = {"idempotency-key": "order-18"}

    async def send(colour: int) -> httpx2.Response:
        files = {"prompt": (None, "x"), "image": ("a.png", picture(colour))}
        return await client.post("/generate", files=files, headers=headers)

    first, again = await send(1), await send(1)
    assert first.json()["job_id"] == again.json()["job_id"]
    problem(await send(2), 409, "Idempotency-Key")


async def test_concurrent_repetitions_make_one_job(client):
    answers = await asyncio.gather(
        *(
            client.post("/generate", json={"prompt": "x"}, headers={"idempotency-key": "k"})
            for _ in range(20)
        )
    )
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00e9"])
async def test_an_idempotency_key_is_visible_ascii(client, key):
    headers = {"idempotency-key": key.encode("latin-1")}
    answer = await client.post("/generate", json={"prompt": "x"}, headers=headers)
    problem(answer, 422, "Idempotency-Key")
