"""A model with a feature cache as a server sees it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusion_core.model_config import parse_model_config
from diffusion_engine.checkpoint import KEY_VARIABLE
from diffusion_engine.service import DiffusionService
from tiny import tiny_stable_diffusion
from unpacked import TINY_HANDLER, unpack

FIELDS = {"prompt": "a cat", "num_inference_steps": 8, "seed": 4}
CACHE = {"kind": "deep", "interval": 3}


def open_service(folder: Path, **handler: Any) -> DiffusionService:
    document = {"continuousBatching": True, "handler": {**TINY_HANDLER, **handler}}
    return DiffusionService(folder, parse_model_config(document))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("cached"), tiny_stable_diffusion(), feature_cache=CACHE)


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[DiffusionService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "ab" * 32)
        opened = open_service(folder, feature_cache=CACHE)
        yield opened
        opened.close()


def pixels(image: str) -> bytes:
    return Image.open(BytesIO(base64.b64decode(image))).tobytes()


def drawn(service: DiffusionService, **fields: Any) -> bytes:
    answer = service.submit({**FIELDS, **fields}).answer.result(60)
    assert answer.status == 200, answer.body
    return pixels(json.loads(answer.body)["image"])


def test_a_request_may_do_without(service: DiffusionService) -> None:
    whole = drawn(service, feature_cache=False)
    assert drawn(service) == drawn(service, feature_cache=True) != whole
    told = service.describe()
    assert told["capabilities"]["feature_cache"] is True
    assert told["engine"]["feature_cache"].items() >= {**CACHE, "depth": 1, "held_mb": 0}.items()
    assert 0 < told["engine"]["feature_cache"]["skipped"] < told["engine"]["feature_cache"]["rows"]


def test_a_model_without_one_has_no_such_field(folder: Path) -> None:
    plain = open_service(folder)
    try:
        answer = plain.submit({**FIELDS, "feature_cache": False}).answer.result(60)
        assert answer.status == 422
        assert json.loads(answer.body)["field"] == "feature_cache"
        assert plain.describe()["engine"]["feature_cache"] is None
    finally:
        plain.close()


def test_checkpoints_come_before_whole_steps(service: DiffusionService) -> None:
    pending = service.submit({**FIELDS, "checkpoint_every": 2}, accept="application/x-ndjson")
    pending.answer.result(60)
    assert pending.stream is not None
    events = [json.loads(line) for line in pending.stream.take()[0].splitlines()]
    checkpoints = {e["step"]: e["checkpoint"] for e in events if e["type"] == "checkpoint"}
    # Due after 2, 4 and 6; steps 0, 3 and 6 are whole.
    assert list(checkpoints) == [3, 6]
    assert drawn(service, checkpoint=checkpoints[3]) == pixels(events[-1]["image"])
