"""Bad requests fail alone, by name, and quietly."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from PIL import Image

from diffusion_core.errors import OutOfMemoryError
from diffusion_core.source_image import SourceImage
from handler.test_images import base64_of, file
from handler_client import Client, Form, Raw

GOOD = {"prompt": "a cat", "seed": 1}

BAD: list[tuple[str, Any, int, str | None]] = [
    ("not JSON", b"{prompt: cat", 400, None),
    ("a list", [1, 2], 400, None),
    ("nothing", {}, 422, "prompt"),
    ("wrong type", {"prompt": 3}, 422, "prompt"),
    ("empty prompt", {"prompt": ""}, 422, "prompt"),
    ("blank prompt", {"prompt": " \n"}, 422, "prompt"),
    ("100 kB prompt", {"prompt": "x" * 100_000}, 422, "prompt"),
    ("width 0", {**GOOD, "width": 0}, 422, "width"),
    ("width negative", {**GOOD, "width": -8}, 422, "width"),
    ("width 63", {**GOOD, "width": 63}, 422, "width"),
    ("width a million", {**GOOD, "width": 10**6}, 422, "width"),
    ("no steps", {**GOOD, "num_inference_steps": 0}, 422, "num_inference_steps"),
    ("a billion steps", {**GOOD, "num_inference_steps": 10**9}, 422, "num_inference_steps"),
    ("steps as text", {**GOOD, "num_inference_steps": "3"}, 422, "num_inference_steps"),
    ("steps as a truth", {**GOOD, "num_inference_steps": True}, 422, "num_inference_steps"),
    ("NaN", {**GOOD, "guidance_scale": float("nan")}, 422, "guidance_scale"),
    ("infinity", {**GOOD, "guidance_scale": float("inf")}, 422, "guidance_scale"),
    ("a seed of 2**64", {**GOOD, "seed": 2**64}, 422, "seed"),
    ("unknown field", {**GOOD, "guidence_scale": 3}, 422, "guidence_scale"),
    ("no use here", {**GOOD, "prompt_2": "x"}, 422, "prompt_2"),
    ("ControlNet", {**GOOD, "control_image": "x"}, 422, "control_image"),
    ("IP-Adapter", {**GOOD, "ip_adapter_image": "x"}, 422, "ip_adapter_image"),
    ("unknown scheduler", {**GOOD, "scheduler": "Nope"}, 422, "scheduler"),
    ("too many images", {**GOOD, "num_images": 99}, 422, "num_images"),
    ("too many layers skipped", {**GOOD, "clip_skip": 40}, 422, "clip_skip"),
    ("form of nonsense", Form(prompt="a cat", seed="many"), 422, "seed"),
    ("body and query", {"body": GOOD, "seed": b"3"}, 400, None),
]


@pytest.mark.parametrize(("row", "status", "field"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_request_names_its_field_and_its_mates_get_pictures(
    client: Client, row: Any, status: int, field: str | None
) -> None:
    if isinstance(row, dict) and "body" in row:
        row = Raw(row)
    before, bad, after = client.batch(GOOD, row, {**GOOD, "seed": 2})
    assert (before[0], bad[0], after[0]) == (200, status, 200)
    assert bad[1] == "application/problem+json"
    assert bad[2].get("field") == field
    assert bad[2]["status"] == status
    assert bad[2]["detail"]


def test_bounds_are_told(client: Client) -> None:
    problem = client.one({**GOOD, "num_inference_steps": 1000})[2]
    assert problem["bound"] == {"maximum": 100}


def test_an_image_file_holds_one_image(client: Client) -> None:
    status, _, problem = client.one({**GOOD, "num_images": 2}, Accept="image/png")
    assert status == 406
    assert problem["field"] == "num_images"


def test_an_unknown_type_is_not_acceptable(client: Client) -> None:
    assert client.one(GOOD, accept="text/html")[0] == 406


def test_a_deadline_ends_a_request_alone(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.handler.service is not None
    monkeypatch.setattr(client.handler.service.engine.policy, "profile", None)
    late, fine = client.batch({**GOOD, "num_inference_steps": 100, "timeout_s": 0.05}, GOOD)
    assert late[0] == 504
    assert late[2]["field"] == "timeout_s"
    assert fine[0] == 200


def test_a_deadline_that_cannot_be_met_is_refused_at_once(client: Client) -> None:
    late, fine = client.batch({**GOOD, "num_inference_steps": 100, "timeout_s": 1e-3}, GOOD)
    assert late[0] == 503
    assert late[2]["field"] == "timeout_s"
    assert fine[0] == 200


SECRET = "xyzzyplugh"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": f"{SECRET} " * 400},
        {"prompt": SECRET, "seed": SECRET},
        {"prompt": [SECRET]},
        {SECRET + " as a key": 1},
        f'{{"prompt": "{SECRET}'.encode(),
        {"prompt": f"{SECRET} " * 30, "num_inference_steps": 1},
    ],
)
def test_prompts_reach_no_log_and_no_error(
    client: Client, row: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        _, _, body = client.one(row)
    assert SECRET not in caplog.text
    assert SECRET not in str(body)
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err


def test_a_stream_in_an_image_file_is_refused(client: Client) -> None:
    status, content_type, problem = client.one({**GOOD, "stream": True}, Accept="image/png")
    assert (status, content_type) == (406, "application/problem+json")
    assert problem["field"] == "stream"
    assert "text/event-stream" in problem["detail"]


def test_an_image_beyond_the_memory_fails_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(_source: SourceImage) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(SourceImage, "decode", decode)
    large = {**GOOD, "image": base64_of(file())}
    before, bad, after = client.batch(GOOD, large, {**GOOD, "seed": 2})
    assert (before[0], bad[0], after[0]) == (200, OutOfMemoryError.status, 200)
    assert bad[1] == "application/problem+json"
