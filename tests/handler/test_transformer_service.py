"""FLUX.1 as a server sees it: what it can be asked for, previews of packed latents, checkpoints."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_core.model_config import parse_model_config
from diffusion_engine.checkpoint import KEY_VARIABLE
from diffusion_engine.inspection import capabilities
from diffusion_engine.loading import with_tasks
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from diffusion_engine.service import DiffusionService
from handler.test_images import base64_of, file
from tiny_pipelines import tiny
from unpacked import TINY_HANDLER, unpack

STREAM = "application/x-ndjson"
FIELDS = {
    "prompt": "a cat",
    "negative_prompt": "a dog",
    "true_cfg_scale": 3.0,
    "max_sequence_length": 48,
    "num_inference_steps": 4,
    "seed": 3,
    "width": 64,
    "height": 32,
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionService]:
    folder: Path = unpack(tmp_path_factory.mktemp("flux"), tiny("FluxPipeline"))
    sized = {
        "defaults": {"num_inference_steps": 2, "width": 32, "height": 32},
        "engine": {"max_rows": 2},
    }
    document = {"continuousBatching": True, "handler": {**TINY_HANDLER, **sized}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "ab" * 32)
        opened = DiffusionService(folder, parse_model_config(document))
        opened.warm_up()
        yield opened
        opened.close()


def events(service: DiffusionService, fields: dict[str, Any]) -> list[dict[str, Any]]:
    pending = service.submit(fields, accept=STREAM)
    answer = pending.answer.result(60)
    assert answer.status == 200, answer.body
    assert pending.stream is not None
    return [json.loads(line) for line in pending.stream.take()[0].splitlines()]


def apart(image: str, other: str) -> int:
    """The largest difference of any byte of two files in base64."""
    one, two = (
        np.asarray(Image.open(BytesIO(base64.b64decode(text))), dtype=np.int16)
        for text in (image, other)
    )
    return int(np.abs(one - two).max())


def test_previews_have_the_picture_s_proportions(service: DiffusionService) -> None:
    previews = [
        Image.open(BytesIO(base64.b64decode(event["image"])))
        for event in events(service, {**FIELDS, "preview_every": 1})
        if event["type"] == "preview"
    ]
    assert [preview.size for preview in previews] == [(64, 32)] * 3


def test_a_checkpoint_goes_on_twice_and_for_its_own_request_alone(
    service: DiffusionService,
) -> None:
    told = events(service, {**FIELDS, "checkpoint_every": 2})
    (kept,) = [event["checkpoint"] for event in told if event["type"] == "checkpoint"]
    for _ in range(2):
        assert events(service, {**FIELDS, "checkpoint": kept})[-1]["image"] == told[-1]["image"]
    for fields, reason in (
        ({**FIELDS, "checkpoint": kept[:400]}, "damaged"),
        ({**FIELDS, "checkpoint": kept, "true_cfg_scale": 2.0}, "another request"),
        ({**FIELDS, "checkpoint": kept, "width": 32, "height": 64}, "another request"),
    ):
        answer = service.submit(fields).answer.result(60)
        assert answer.status == 422
        assert reason in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("name", "settings", "multiple", "longest"),
    [
        ("StableDiffusion3Pipeline", {}, 8, 512),
        ("FluxPipeline", {}, 8, 512),
        ("QwenImagePipeline", {}, 8, 1024),
        ("ZImagePipeline", {}, 8, None),
        # Latents an eighth of the picture, in patches of two.
        ("PixArtSigmaPipeline", {}, 16, None),
    ],
)
def test_bounds_are_the_pipeline_s_own(
    name: str, settings: dict[str, Any], multiple: int, longest: int | None
) -> None:
    served = ServedPipeline(with_tasks(tiny(name, **settings)), PromptCache(1 << 20))
    found = capabilities(served, streaming=True, checkpoints=True)
    assert (found.size_multiple, found.max_sequence_length) == (multiple, longest)
    assert found.previews
    assert found.checkpoints
    # A flow pipeline draws its last step whole, however small a share of it strength leaves.
    assert not found.whole_steps


def test_a_scale_that_the_model_does_not_read_is_no_field() -> None:
    schnell = tiny("FluxPipeline", transformer={"guidance_embeds": False})
    for pipeline, read in (
        (schnell, False),
        (tiny("FluxPipeline"), True),
        (tiny("SanaPipeline"), True),
    ):
        served = ServedPipeline(with_tasks(pipeline), PromptCache(1 << 20))
        parameters = capabilities(served).call_parameters["text-to-image"]
        assert ("guidance_scale" in parameters) is read


def test_a_pipeline_that_changes_its_denoiser_is_refused() -> None:
    with pytest.raises(Exception, match="without PAG"):
        ServedPipeline({"text-to-image": tiny("StableDiffusionPAGPipeline")}, PromptCache(1 << 20))


def test_several_pictures_over_one_image(tmp_path: Path) -> None:
    folder = unpack(tmp_path, tiny("StableDiffusion3Pipeline"))
    document = {"handler": {**TINY_HANDLER, "defaults": {"width": 32, "height": 32}}}
    opened = DiffusionService(folder, parse_model_config(document))
    fields = {"prompt": "a cat", "seed": 5, "num_inference_steps": 3, "image": base64_of(file())}
    both, second = (
        json.loads(opened.submit({**fields, **more}).answer.result(60).body)["images"]
        for more in ({"num_images": 2}, {"seed": 6})
    )
    opened.close()
    assert len(both) == 2
    # The second picture of two is that of the next seed.
    assert apart(both[1], second[0]) <= 1
