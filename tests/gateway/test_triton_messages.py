"""Requests, responses and errors of a Triton, in the words that the gateway has for TorchServe's;
no server is needed for these."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tritonclient.grpc import InferResult, model_config_pb2, service_pb2

from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.model_server import AnswerError, ConnectionLostError
from diffusion_gateway.upstream.triton_messages import (
    Form,
    error_of,
    event_of,
    inputs_of,
    newest,
    outputs_of,
)

DATATYPES = {
    "prompt": "TYPE_STRING",
    "seed": "TYPE_INT64",
    "guidance_scale": "TYPE_FP32",
    "num_inference_steps": "TYPE_INT32",
    "describe": "TYPE_BOOL",
    "encoding": "TYPE_STRING",
}


def form(name: str = "emoji_stream", **changes: Any) -> Form:
    config = model_config_pb2.ModelConfig(max_batch_size=1, **changes)
    for field, datatype in DATATYPES.items():
        config.input.add(name=field, data_type=datatype)
    config.instance_group.add(count=2)
    config.model_transaction_policy.decoupled = name.endswith("_stream")
    return Form.of(name, "3", config)


def response(**outputs: Any) -> InferResult:
    message = service_pb2.ModelInferResponse(model_name="emoji_stream")
    for name, value in outputs.items():
        tensor = message.outputs.add(name=name, shape=[1, 1])
        if isinstance(value, int):
            tensor.datatype = "INT32"
            message.raw_output_contents.append(np.int32(value).tobytes())
        else:
            tensor.datatype = "BYTES"
            data = value.encode()
            message.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    return InferResult(message)


def test_a_form_is_as_its_configuration_says() -> None:
    one = form(parameters={"batch_size": model_config_pb2.ModelParameter(string_value="4")})
    assert (one.family, one.decoupled, one.draws) == ("emoji", True, True)
    assert (one.batch_size, one.instances) == (4, 2)
    assert form().batch_size == 1
    # Only what streams is called after another model.
    assert Form("my_stream", "1", {}, 1, 1, decoupled=False).family == "my_stream"
    ensemble = model_config_pb2.ModelConfig()
    ensemble.ensemble_scheduling.step.add(model_name="emoji")
    assert Form.of("emoji_ensemble", "1", ensemble).uses == {"emoji"}
    assert not Form("emoji_thumbnail", "1", {"image": "UINT8"}, 1, 1, decoupled=False).draws


def test_fields_are_tensors_of_the_types_that_the_model_declares() -> None:
    fields = {"prompt": "rød", "seed": 2**62, "guidance_scale": 3, "typo": 1, "image": None}
    tensors, parameters = inputs_of(fields, form(), "00-ab-cd-01")
    assert {one.name(): one.datatype() for one in tensors} == {
        "prompt": "BYTES",
        "seed": "INT64",
        "guidance_scale": "FP32",
        "encoding": "BYTES",
    }
    assert all(one.shape() == [1, 1] for one in tensors)
    # The model names what it does not know; the gateway need not.
    assert parameters == {"typo": 1, "traceparent": "00-ab-cd-01"}


def test_objects_are_json_as_an_input_and_as_a_parameter() -> None:
    fields = {"adapters": {"ink": 0.5, "fog": 1}}
    declares = Form("emoji", "1", {"adapters": "BYTES"}, 1, 1, decoupled=False)
    (tensor,), _ = inputs_of(fields, declares)
    message = tensor._get_content()
    assert json.loads(message[4:]) == fields["adapters"]
    _, parameters = inputs_of(fields, form())
    assert json.loads(parameters["adapters"]) == fields["adapters"]


def test_pixels_are_not_asked_for() -> None:
    assert "image" not in {one.name() for one in outputs_of(form())}
    assert [one.name() for one in outputs_of(form("emoji"), describe=True)] == ["metadata"]


def test_responses_are_the_events_of_a_torchserve() -> None:
    spent = json.dumps({"device_seconds": 0.25})
    step = response(event="progress", step=3, steps=20, metadata=spent)
    told = {"type": "progress", "step": 3, "steps": 20, "device_seconds": 0.25}
    assert event_of(step) == told
    preview = response(event="preview", step=4, images="/9g=", metadata="{}")
    assert event_of(preview) == {"type": "preview", "step": 4, "image": "/9g="}
    saved = response(event="checkpoint", step=5, checkpoint="c2F2ZWQ=", metadata=spent)
    assert event_of(saved)["checkpoint"] == "c2F2ZWQ="
    last = response(event="completed", images="iVBO", metadata=json.dumps({"seeds": [7]}))
    assert event_of(last) == {"type": "completed", "seeds": [7], "images": ["iVBO"]}


def test_a_problem_document_is_the_models_own_word() -> None:
    problem = {"status": 422, "code": "invalid_field", "detail": "width: no", "field": "width"}
    error = error_of(json.dumps({**problem, "retry_after": 3, "device_seconds": 1.5}))
    assert isinstance(error, AnswerError)
    assert (error.answered, error.document) == (422, problem)
    assert (error.retry_after, error.device_seconds) == (3, 1.5)
    assert not error.worker_died


@pytest.mark.parametrize(
    ("message", "code", "kind", "told"),
    [
        ("Stub process 'emoji_0_0' is not healthy.", "INTERNAL", AnswerError, 507),
        ("Stub process 'emoji_0_0' is not healthy.", "", AnswerError, 507),
        ("Request for unknown model: 'emoji' is not found", "UNAVAILABLE", AnswerError, 503),
        ("Exceeds maximum queue size", "UNAVAILABLE", AnswerError, 503),
        ("failed to connect to all addresses", "UNAVAILABLE", ConnectionLostError, False),
        ("Socket closed", "UNAVAILABLE", ConnectionLostError, True),
        ("Deadline Exceeded", "DEADLINE_EXCEEDED", ConnectionLostError, True),
        ("unexpected shape for input 'seed'", "INVALID_ARGUMENT", AnswerError, 400),
        ("out of something", "INTERNAL", AnswerError, 500),
    ],
)
def test_errors_without_a_problem_document(message: str, code: str, kind: type, told: Any) -> None:
    error = error_of(message, code)
    assert type(error) is kind
    assert (error.answered if isinstance(error, AnswerError) else error.sent) == told


def test_of_several_versions_the_newest_that_is_loaded_counts() -> None:
    def row(version: str, state: str) -> Any:
        index = service_pb2.RepositoryIndexResponse.ModelIndex
        return index(name="emoji", version=version, state=state)

    rows = [row("9", "READY"), row("10", "READY"), row("11", "UNAVAILABLE")]
    assert newest(rows)["emoji"].version == "10"
    assert newest(rows[2:])["emoji"].version == "11"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"inference": "http://x:1"}, "management"),
        ({"inference": "grpc://x:1", "management": "http://x:2"}, "inference"),
        ({"kind": "triton", "inference": "http://x:1"}, "inference"),
        ({"kind": "triton", "inference": "grpc://x", "management": "http://x"}, "management"),
        ({"kind": "triton", "inference": "grpc://x:1", "key_file": "keys"}, "key_file"),
        ({"kind": "vllm", "inference": "grpc://x:1"}, "kind"),
    ],
)
def test_an_endpoint_has_the_addresses_of_its_kind(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        EndpointSettings.model_validate(fields)
    assert EndpointSettings(kind="triton", inference="grpcs://x:1").management is None
