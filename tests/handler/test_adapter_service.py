"""Adapters through the handler: answered, told of, refused, checkpointed."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from archiving.lora_worker import read_lora, without_weights
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import parse_model_config
from diffusion_engine.adapters import write_adapter
from diffusion_engine.checkpoint import KEY_VARIABLE
from diffusion_engine.service import DiffusionService
from loras import save_lora
from tiny import tiny_stable_diffusion
from unpacked import TINY_HANDLER, unpack

NAMES = ("attention", "everywhere")
PLACES = {name: f"adapters/{name}.safetensors" for name in NAMES}
SECRET = "xyzzy-plugh"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked archive with two adapters."""
    folder, scratch = tmp_path_factory.mktemp("adapted"), tmp_path_factory.mktemp("loras")
    pipeline = tiny_stable_diffusion()
    pipeline.save_pretrained(scratch / "pipeline", safe_serialization=True)
    bare = without_weights(scratch / "pipeline")
    (folder / "adapters").mkdir()
    for name, place in PLACES.items():
        lora = save_lora(pipeline, name, scratch / f"{name}.safetensors")
        write_adapter(read_lora(bare, lora), folder / place)
    return unpack(folder, pipeline, adapters={"files": PLACES})


def open_service(folder: Path, **adapters: Any) -> DiffusionService:
    # Whether sharing pays is measured, and of a busy machine it may be that it does not.
    engine = {"max_rows": 16}
    handler = {**TINY_HANDLER, "engine": engine, "adapters": {"files": PLACES, **adapters}}
    config = parse_model_config({"continuousBatching": True, "handler": handler})
    return DiffusionService(folder, config)


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[DiffusionService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "cd" * 32)
        opened = open_service(folder)
        opened.warm_up()
        yield opened
        opened.close()


def answer(service: DiffusionService, **fields: Any) -> tuple[int, dict[str, Any]]:
    fields = {"prompt": "a cat", "seed": 4, "num_inference_steps": 4, **fields}
    found = service.submit(fields).answer.result(60)
    return found.status, json.loads(found.body)


def picture(service: DiffusionService, **fields: Any) -> bytes:
    status, body = answer(service, **fields)
    assert status == 200, body
    return base64.b64decode(body["image"])


def test_adapters_change_the_picture_and_are_told_in_the_file(service: DiffusionService) -> None:
    drawn = [
        picture(service, adapters=adapters)
        for adapters in (None, {"attention": 1}, {"attention": 0.5}, {"everywhere": 1.0})
    ]
    pixels = [Image.open(io.BytesIO(file)).tobytes() for file in drawn]
    assert len(set(pixels)) == 4
    told = [json.loads(Image.open(io.BytesIO(file)).info["generation"]) for file in drawn]
    assert [one.get("adapters") for one in told] == [
        None,
        {"attention": 1.0},
        {"attention": 0.5},
        {"everywhere": 1.0},
    ]


def test_requests_of_every_kind_share_calls(service: DiffusionService) -> None:
    counts = service.engine.forward.counts
    before = counts.denoiser_calls
    fields = {"prompt": "a cat", "seed": 4, "num_inference_steps": 40}
    wanted = [None, {"attention": 1}, {"everywhere": 0.3, "attention": -1}]
    pending = [service.submit({**fields, "adapters": adapters}) for adapters in wanted]
    assert [one.answer.result(60).status for one in pending] == [200] * 3
    # Those that come later than the first step are drawn to their end by themselves.
    assert counts.denoiser_calls - before < 60


@pytest.mark.parametrize(
    "adapters",
    [{SECRET: 1.0}, {"attention": 3.0}, {"attention": "much"}, ["attention"], "attention"],
)
def test_what_is_not_there_is_answered_with_what_is(
    service: DiffusionService, adapters: Any
) -> None:
    status, body = answer(service, adapters=adapters)
    assert (status, body["code"]) == (422, "invalid_field")
    assert body["field"].startswith("adapters")
    assert SECRET not in json.dumps(body)
    if isinstance(adapters, dict) and SECRET in adapters:
        assert body["bound"] == {"expected": "attention, everywhere"}


def test_described(service: DiffusionService) -> None:
    told = service.describe()
    assert told["adapters"] == {
        "attention": {"rank": 4, "components": ["unet"]},
        "everywhere": {"rank": 3, "components": ["text_encoder", "unet"]},
    }
    assert told["capabilities"]["adapters"] == list(NAMES)
    assert "adapters" in told["request_schema"]["properties"]


def test_a_checkpoint_goes_on_with_its_adapters_and_no_others(service: DiffusionService) -> None:
    fields = {"prompt": "a cat", "seed": 11, "num_inference_steps": 6}
    fields |= {"adapters": {"everywhere": 0.8, "attention": 0.5}}
    asked = {**fields, "checkpoint_every": 3}
    pending = service.submit(asked, accept="application/x-ndjson")
    assert pending.answer.result(60).status == 200
    assert pending.stream is not None
    events = [json.loads(line) for line in pending.stream.take()[0].splitlines()]
    kept = next(event for event in events if event["type"] == "checkpoint")
    # In another order, and beside one without any.
    again = {
        **fields,
        "adapters": {
            "attention": 0.5,
            "everywhere": 0.8,
        },
    }
    status, body = answer(service, **again, checkpoint=kept["checkpoint"])
    assert (status, body["image"]) == (200, events[-1]["image"])
    for others in (None, {"everywhere": 0.8}, {"everywhere": 0.8, "attention": 0.51}):
        status, body = answer(
            service, **{**fields, "adapters": others}, checkpoint=kept["checkpoint"]
        )
        assert (status, body["field"]) == (422, "checkpoint")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_rank": 3}, "handler.adapters.max_rank"),
        ({"files": {"gone": "adapters/gone.safetensors"}}, None),
        ({"files": {"other": "pipeline/unet/diffusion_pytorch_model.safetensors"}}, None),
    ],
)
def test_a_worker_that_cannot_serve_its_adapters_does_not_start(
    folder: Path, settings: Any, field: str | None
) -> None:
    with pytest.raises(ConfigError) as raised:
        open_service(folder, **settings)
    assert raised.value.field == field
