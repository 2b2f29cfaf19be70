"""A request goes on from a checkpoint, bit for bit; what is not its own is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffusion_core.model_config import parse_model_config
from diffusion_engine.checkpoint import KEY_VARIABLE
from diffusion_engine.service import DiffusionService
from handler.test_images import base64_of, file
from tiny import tiny_stable_diffusion
from unpacked import TINY_HANDLER, unpack

STREAM = "application/x-ndjson"


def open_service(folder: Path) -> DiffusionService:
    config = parse_model_config({"continuousBatching": True, "handler": TINY_HANDLER})
    return DiffusionService(folder, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("checkpoints"), tiny_stable_diffusion())


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[DiffusionService]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "ab" * 32)
        opened = open_service(folder)
        opened.warm_up()
        yield opened
        opened.close()


def events(service: DiffusionService, fields: dict[str, Any]) -> list[dict[str, Any]]:
    pending = service.submit(fields, accept=STREAM)
    answer = pending.answer.result(60)
    assert answer.status == 200, answer.body
    assert pending.stream is not None
    return [json.loads(line) for line in pending.stream.take()[0].splitlines()]


def checkpoints(service: DiffusionService, fields: dict[str, Any]) -> tuple[dict[int, str], str]:
    """Checkpoints by step, and the picture that came of it."""
    all_events = events(service, {**fields, "checkpoint_every": 1})
    kept = {e["step"]: e["checkpoint"] for e in all_events if e["type"] == "checkpoint"}
    return kept, all_events[-1]["image"]


SCHEDULERS = [
    "DDIMScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "DEISMultistepScheduler",
]

TASKS: dict[str, dict[str, Any]] = {
    "text-to-image": {},
    "image-to-image": {"image": base64_of(file()), "strength": 0.9},
    "inpainting": {"image": base64_of(file()), "mask_image": base64_of(file(mode="L"))},
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_resumed_is_bit_identical(service: DiffusionService, scheduler: str, task: str) -> None:
    fields = {
        "prompt": "a cat",
        "seed": 11,
        "num_inference_steps": 6,
        "num_images": 2,
        "scheduler": scheduler,
        **TASKS[task],
    }
    kept, picture = checkpoints(service, fields)
    assert len(kept) >= 3
    for step in (min(kept), max(kept)):
        resumed = events(service, {**fields, "checkpoint": kept[step]})
        assert resumed[-1]["image"] == picture
        assert resumed[0]["step"] == step + 1


def test_a_drawn_seed_goes_on(service: DiffusionService) -> None:
    kept, picture = checkpoints(service, {"prompt": "a cat", "num_inference_steps": 4})
    resumed = events(service, {"prompt": "a cat", "num_inference_steps": 4, "checkpoint": kept[2]})
    assert resumed[-1]["image"] == picture


def test_another_process_goes_on_and_twice(folder: Path, service: DiffusionService) -> None:
    # Another service on the same archive stands for the other process: nothing is shared.
    fields = {"prompt": "a cat", "num_inference_steps": 5, "seed": 3}
    kept, picture = checkpoints(service, fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "ab" * 32)
        other = open_service(folder)
    for _ in range(2):
        assert events(other, {**fields, "checkpoint": kept[3]})[-1]["image"] == picture
    other.close()


def test_resuming_computes_only_what_is_left(service: DiffusionService) -> None:
    fields = {"prompt": "a cat", "num_inference_steps": 10, "seed": 3}
    kept, _ = checkpoints(service, fields)
    before = service.engine.forward.counts.denoiser_calls
    events(service, {**fields, "checkpoint": kept[7]})
    assert service.engine.forward.counts.denoiser_calls - before == 3


def refused(service: DiffusionService, fields: dict[str, Any]) -> str:
    answer = service.submit(fields).answer.result(60)
    assert answer.status == 422
    problem = json.loads(answer.body)
    assert problem["field"] == "checkpoint"
    return str(problem["detail"])


FIELDS = {"prompt": "a cat", "num_inference_steps": 4, "seed": 3}


@pytest.fixture(scope="module")
def checkpoint(service: DiffusionService) -> bytes:
    return base64.b64decode(checkpoints(service, FIELDS)[0][2])


def carrying(data: bytes, **fields: Any) -> dict[str, Any]:
    return {**FIELDS, **fields, "checkpoint": base64.b64encode(data).decode()}


@pytest.mark.parametrize("length", [0, 5, 32, 40, -1])
def test_a_cut_one_is_refused(service: DiffusionService, checkpoint: bytes, length: int) -> None:
    assert "damaged" in refused(service, carrying(checkpoint[:length]))


@pytest.mark.parametrize("place", [0, 33, 60, -1])
def test_a_changed_one_is_refused(service: DiffusionService, checkpoint: bytes, place: int) -> None:
    changed = bytearray(checkpoint)
    changed[place] ^= 1
    assert "damaged" in refused(service, carrying(bytes(changed)))


def test_another_requests_is_refused(service: DiffusionService, checkpoint: bytes) -> None:
    assert "another request" in refused(service, carrying(checkpoint, prompt="a dog"))
    assert "another request" in refused(service, carrying(checkpoint, seed=4))


def test_another_archives_is_refused(
    tmp_path: Path, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "ab" * 32)
    other = open_service(unpack(tmp_path / "archive", tiny_stable_diffusion(seed=9)))
    assert "another archive" in refused(other, carrying(checkpoint))
    other.close()


def test_without_a_key_there_are_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    opened = open_service(folder)
    answer = opened.submit({**FIELDS, "checkpoint_every": 1}, accept=STREAM).answer.result(60)
    assert answer.status == 422
    assert opened.describe()["checkpoints"] is False
    opened.close()


def test_a_short_key_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "abcd")
    with pytest.raises(ValueError, match="16 bytes"):
        open_service(folder)


def test_it_holds_no_prompt(checkpoint: bytes) -> None:
    assert b"a cat" not in checkpoint
