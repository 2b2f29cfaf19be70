"""Requests and answers as Triton's tensors."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from triton_calls import tensor
from tritonclient.utils import deserialize_bytes_tensor

from diffusion_core.capabilities import Capabilities
from diffusion_core.errors import InvalidFieldError, MalformedBodyError
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import RequestSchema
from diffusion_engine.answers import JSON, Answer
from diffusion_gateway.upstream.triton_messages import Form, inputs_of
from triton_tensors import Asked, asked, pictures, progress


def fields(parameters: dict[str, Any] | None = None, **values: Any) -> Asked:
    inputs = {
        name: tensor(name, *(one if isinstance(one, list) else [one])).as_numpy()
        for name, one in values.items()
    }
    return asked(inputs, parameters or {}, ["images"])


def answer(*files: bytes, width: int = 2, seed: int = 7) -> Answer:
    images = [base64.b64encode(file).decode() for file in files]
    body = {"image": images[0], "images": images, "width": width, "height": 2}
    body |= {"seed": seed, "seeds": [seed + offset for offset in range(len(files))]}
    return Answer(200, json.dumps(body).encode(), JSON)


def test_each_row_is_a_request() -> None:
    request = fields(prompt=["a cat", "a dog"], seed=[1, 2], embed_prompt=[True, False])
    assert request.rows == (
        {"prompt": "a cat", "seed": "1", "embed_prompt": "true"},
        {"prompt": "a dog", "seed": "2", "embed_prompt": "false"},
    )


@pytest.mark.parametrize("value", [3.3, 7.5, 0.1, 12.75])
def test_a_float_has_the_value_that_was_written(value: float) -> None:
    """Widened, 3.3 in 32 bits is another number than the 3.3 of a JSON request."""
    assert float(fields(prompt="x", guidance_scale=value).rows[0]["guidance_scale"]) == value


@pytest.mark.parametrize("inputs", [{"prompt": "BYTES", "adapters": "BYTES"}, {"prompt": "BYTES"}])
def test_adapters_that_the_gateway_sends_are_those_that_its_client_named(
    inputs: dict[str, str],
) -> None:
    form = Form("tiny", "1", {**inputs, "encoding": "BYTES"}, 1, 1, decoupled=False)
    tensors, parameters = inputs_of({"prompt": "a", "adapters": {"ink": 0.5, "fog": -1}}, form)
    read = {one.name(): deserialize_bytes_tensor(one._get_content()) for one in tensors}
    arrays = {name: values.reshape(1, 1) for name, values in read.items()}
    (row,) = asked(arrays, parameters, ["images"]).rows
    capabilities = Capabilities(
        pipeline_class="StableDiffusionPipeline",
        call_parameters={"text-to-image": frozenset()},
        default_width=512,
        default_height=512,
        size_multiple=8,
        schedulers=("DDIMScheduler",),
        default_scheduler="DDIMScheduler",
        adapters=("ink", "fog"),
    )
    schema = RequestSchema(capabilities, Limits(), Defaults())
    assert schema.parse_form(row).adapters == {"ink": 0.5, "fog": -1.0}


def test_files_are_bytes_and_in_base64_text() -> None:
    assert fields(image=b"\x89PNG").rows[0]["image"] == b"\x89PNG"
    in_text = fields(image="iVBORw==", encoding="base64")
    assert in_text.rows[0] == {"image": "iVBORw=="}
    assert in_text.text


def test_parameters_are_fields_too() -> None:
    request = fields({"num_inference_steps": 4, "embed_prompt": True}, prompt=["a", "b"])
    assert [row["num_inference_steps"] for row in request.rows] == ["4", "4"]
    assert request.rows[0]["embed_prompt"] == "true"
    with pytest.raises(MalformedBodyError, match="prompt: is both"):
        fields({"prompt": "b"}, prompt="a")


def test_what_tritons_own_clients_set_is_no_field() -> None:
    parameters = {"triton_enable_empty_final_response": False}
    assert fields(parameters, prompt="a").rows == ({"prompt": "a"},)


def test_a_request_without_inputs_has_one_empty_row() -> None:
    assert fields().rows == ({},)
    assert fields(describe=True).describe
    assert not fields(describe=False, prompt="x").describe


@pytest.mark.parametrize("encoding", ["utf-8", ["binary", "base64"]])
def test_another_encoding_is_refused(encoding: Any) -> None:
    with pytest.raises(InvalidFieldError, match="encoding"):
        fields(encoding=encoding)


def test_text_that_is_none_is_named() -> None:
    with pytest.raises(MalformedBodyError, match="prompt: is not UTF-8"):
        fields(prompt=b"\xff")


def test_outputs_have_a_row_for_each_answer() -> None:
    request = Asked((), text=False, describe=False, outputs=frozenset({"image", "images"}))
    pixels = [torch.zeros(3, 2, 2), torch.ones(3, 2, 2)]
    made = pictures([answer(b"one", b"two"), answer(b"three", b"four", seed=9)], pixels, request)
    assert made["images"].tolist() == [[b"one", b"two"], [b"three", b"four"]]
    assert made["seed"].tolist() == [[7, 8], [9, 10]]
    assert made["image"].shape == (2, 2, 2, 3)
    assert made["image"].dtype == np.uint8
    assert made["image"][1].min() == 255
    metadata = json.loads(made["metadata"][0, 0])
    assert metadata["width"] == 2
    assert not {"image", "images"} & metadata.keys()


def test_in_base64_nothing_is_sent_that_json_cannot_hold() -> None:
    request = Asked((), text=True, describe=False, outputs=frozenset({"image", "images"}))
    made = pictures([answer(b"\x89PNG")], [torch.zeros(3, 2, 2)], request)
    assert base64.b64decode(made["images"][0, 0]) == b"\x89PNG"
    assert "image" not in made


def test_rows_that_make_no_block_are_refused() -> None:
    request = Asked((), text=False, describe=False, outputs=frozenset())
    images = [torch.zeros(3, 2, 2)] * 2
    with pytest.raises(InvalidFieldError, match="width"):
        pictures([answer(b"a"), answer(b"b", width=4)], images, request)
    with pytest.raises(InvalidFieldError, match="num_images"):
        pictures([answer(b"a"), answer(b"b", b"c")], images, request)


def test_events_on_the_way() -> None:
    request = Asked((), text=False, describe=False, outputs=frozenset())
    told = {"type": "progress", "step": 3, "steps": 20, "device_seconds": 0.5}
    step = progress(told, request)
    assert {name: one.tolist() for name, one in step.items()} == {
        "event": [[b"progress"]],
        "step": [[3]],
        "steps": [[20]],
        "metadata": [[b'{"device_seconds": 0.5}']],
    }
    preview = progress({"type": "preview", "step": 4, "image": "/9g="}, request)
    assert preview["images"].tolist() == [[b"\xff\xd8"]]
    saved = progress({"type": "checkpoint", "step": 5, "checkpoint": "/9g="}, request)
    assert saved["checkpoint"].tolist() == [[b"\xff\xd8"]]
