"""OpenAI's image edits, by its official client over a real server."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from api_rig import Server, make_gateway, scripted_model, serving
from diffusion_core.limits import Defaults
from diffusion_core.request import RequestSchema
from openai_rig import FakeWorker, client_of, image_of, png

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
