"""What a client gets back for good requests."""

from __future__ import annotations

import base64
import io
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusion_core.capabilities import Capabilities
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import RequestSchema
from handler_client import Client, Form


def image_of(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_json_holds_the_picture_and_what_made_it(client: Client) -> None:
    status, content_type, body = client.one({"prompt": "a cat", "seed": 7})
    assert (status, content_type) == (200, "application/json")
    assert image_of(body["image"]).size == (32, 32)
    assert body["seed"] == 7
    assert body["seeds"] == [7]
    assert body["num_inference_steps"] == 3
    assert body["prompt_truncated"] is False
    assert set(body["timings"]) == {"queue", "encode", "denoise", "decode"}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_accept_names_a_file_format(client: Client, kind: str) -> None:
    status, content_type, body = client.one({"prompt": "a cat"}, Accept=f"image/{kind}")
    assert (status, content_type) == (200, f"image/{kind}")
    assert Image.open(io.BytesIO(body)).format == kind.upper()


def test_several_images_have_seeds_of_their_own(client: Client) -> None:
    _, _, several = client.one({"prompt": "a cat", "seed": 5, "num_images": 3})
    _, _, last = client.one({"prompt": "a cat", "seed": 7})
    assert several["seeds"] == [5, 6, 7]
    assert several["images"][2] == last["image"] or _distance(several, last) <= 1


def _distance(several: dict[str, Any], last: dict[str, Any]) -> int:
    a, b = image_of(several["images"][2]), image_of(last["image"])
    return max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes(), strict=True))


def test_a_drawn_seed_is_told_and_draws_the_picture_again(client: Client) -> None:
    _, _, first = client.one({"prompt": "a cat"})
    assert 0 <= first["seed"] < 2**53
    _, _, again = client.one({"prompt": "a cat", "seed": first["seed"]})
    assert image_of(again["image"]).tobytes() == image_of(first["image"]).tobytes()


def test_a_png_carries_its_settings_and_the_prompt_only_if_asked(client: Client) -> None:
    _, _, plain = client.one({"prompt": "a secret"}, Accept="image/png")
    _, _, asked = client.one({"prompt": "a secret", "embed_prompt": True}, Accept="image/png")
    settings = json.loads(Image.open(io.BytesIO(plain)).text["generation"])
    assert settings["num_inference_steps"] == 3
    assert settings["scheduler"] == "DDIMScheduler"
    assert "prompt" not in settings
    assert json.loads(Image.open(io.BytesIO(asked)).text["generation"])["prompt"] == "a secret"


def test_a_picture_can_be_made_again_from_its_file(client: Client) -> None:
    asked = {"prompt": "again", "embed_prompt": True, "guidance_scale": 3.0, "width": 48}
    _, _, first = client.one({**asked, "scheduler": "UniPCMultistepScheduler"}, Accept="image/png")
    settings = json.loads(Image.open(io.BytesIO(first)).text["generation"])
    settings.pop("identity")
    _, _, again = client.one(settings, Accept="image/png")
    assert Image.open(io.BytesIO(again)).tobytes() == Image.open(io.BytesIO(first)).tobytes()


def test_forms_are_read_like_json(client: Client) -> None:
    form = Form(prompt="a cat", num_inference_steps="2", seed="3", embed_prompt="true")
    assert client.one(form)[2]["num_inference_steps"] == 2


def test_a_long_prompt_is_cut_and_said_to_be(client: Client) -> None:
    assert client.one({"prompt": "cat " * 100})[2]["prompt_truncated"] is True
    assert client.one({"prompt": "cat"})[2]["prompt_truncated"] is False


def test_prompts_of_emoji_are_drawn(client: Client) -> None:
    assert client.one({"prompt": "🐈🐈‍⬛"})[0] == 200


def test_requests_that_differ_in_everything_share_calls(client: Client) -> None:
    assert client.handler.service is not None
    counts = client.handler.service.engine.forward.counts
    before = counts.denoiser_calls
    rows = [
        {"prompt": "a", "num_inference_steps": 6, "guidance_scale": 1.0},
        {"prompt": "b", "num_inference_steps": 3, "guidance_scale": 9.0, "num_images": 2},
        {"prompt": "c", "num_inference_steps": 5, "scheduler": "EulerAncestralDiscreteScheduler"},
    ]
    assert [status for status, _, _ in client.batch(*rows)] == [200] * 3
    # Six calls would do if all joined at the first step; fourteen is what they take alone.
    assert counts.denoiser_calls - before <= 8


def test_describe_tells_limits_defaults_and_schedulers(client: Client) -> None:
    client.batch({"prompt": "x"}, headers=[{}])
    described = client.handler.describe_handle()
    assert described["pipeline_class"] == "StableDiffusionPipeline"
    assert described["limits"]["max_size"] == 64
    assert described["defaults"]["width"] == 32
    assert "HeunDiscreteScheduler" in described["schedulers"]
    assert described["engine"]["shares_calls"] is True
    json.dumps(described)


def test_a_description_makes_the_same_request_schema_elsewhere(client: Client) -> None:
    described = json.loads(json.dumps(client.handler.describe_handle()))
    schema = RequestSchema(
        Capabilities.model_validate(described["capabilities"]),
        Limits.model_validate(described["limits"]),
        Defaults.model_validate(described["handler_defaults"]),
    )
    assert client.handler.service is not None
    fields = {"prompt": "a", "scheduler": "HeunDiscreteScheduler", "seed": 3}
    assert schema.json_schema() == client.handler.service.schema.json_schema()
    assert schema.parse_json(fields) == client.handler.service.schema.parse_json(fields)


def test_a_description_tells_the_memory_that_its_worker_took(client: Client) -> None:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert client.handler.describe_handle()["engine"]["memory_mb"] >= resident >> 20
