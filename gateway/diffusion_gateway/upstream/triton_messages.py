"""A request as a Triton's tensors, its responses as a handler's answers and events, and its errors.

docs/triton.md tells what the models of this project's repositories take and give.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult

from diffusion_core.tracing import HEADER
from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.upstream.model_server import AnswerError, ConnectionLostError, seconds_of

STREAM_SUFFIX = "_stream"
"""A model's decoupled form is called so, after the model."""

_NUMPY: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BYTES": np.object_,
}

# What a Triton says of itself under the code that gRPC has for connections that break.
_REFUSALS = ("unknown model", "no available versions", "maximum queue size", "not ready")
# A worker that ended, of a model that its Triton goes on calling READY.
_DEAD = "not healthy"
_NEVER_SENT = ("failed to connect", "connections to all backends failing", "dns resolution failed")


@dataclass(frozen=True, slots=True)
class Form:
    """One loaded form of a model, as its config.pbtxt has it.

    Attributes:
        name: Triton's name for it.
        inputs: the type of each input.
        batch_size: requests that are drawn together.
        instances: processes that serve it.
        decoupled: whether it streams.
        uses: the models that an ensemble is made of.
    """

    name: str
    version: str
    inputs: Mapping[str, str]
    batch_size: int
    instances: int
    decoupled: bool
    uses: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, version: str, config: Any) -> Form:
        """From its `ModelConfig`."""
        told = config.parameters["batch_size"].string_value
        return cls(
            name=name,
            version=version,
            inputs={one.name: _DATATYPES.get(one.data_type, "unsupported") for one in config.input},
            batch_size=int(told or max(1, config.max_batch_size)),
            instances=sum(one.count * max(1, len(one.gpus)) for one in config.instance_group),
            decoupled=config.model_transaction_policy.decoupled,
            uses=frozenset(step.model_name for step in config.ensemble_scheduling.step),
        )

    @property
    def draws(self) -> bool:
        """Whether it is a model of this project's engine, or a step beside one."""
        return "describe" in self.inputs

    @property
    def family(self) -> str:
        """The name of the model that it is a form of."""
        return family_of(self.name) if self.decoupled else self.name


# model_config.proto's numbers.
_DATATYPES = {1: "BOOL", 8: "INT32", 9: "INT64", 11: "FP32", 13: "BYTES"}


def family_of(name: str) -> str:
    """The model's name, given that of its decoupled form."""
    return name.removesuffix(STREAM_SUFFIX)


def inputs_of(
    fields: Mapping[str, Any], form: Form, traceparent: str | None = None
) -> tuple[list[InferInput], dict[str, Any]]:
    """A request's tensors of shape [1, 1], and as parameters what the form has no input for: the
    model then tells what it makes of that.

    Files travel as base64, which is what the gateway's requests hold; objects travel as JSON.
    """
    tensors: list[InferInput] = []
    parameters = {} if traceparent is None else {HEADER: traceparent}
    given = {name: _scalar(value) for name, value in fields.items() if value is not None}
    for name, value in {**given, "encoding": "base64"}.items():
        datatype = form.inputs.get(name)
        if datatype is None:
            parameters[name] = value
            continue
        tensor = InferInput(name, [1, 1], datatype)
        data = value.encode() if isinstance(value, str) else value
        tensor.set_data_from_numpy(np.array([[data]], dtype=_NUMPY[datatype]))
        tensors.append(tensor)
    return tensors, parameters


def _scalar(value: Any) -> Any:
    """A value as neither a tensor's element nor a parameter can be an object or a list."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def outputs_of(form: Form, *, describe: bool = False) -> list[InferRequestedOutput]:
    """What the gateway reads of responses; pixels are made for those who ask for them."""
    names = ["metadata"] if describe else ["metadata", "images"]
    if form.decoupled:
        names += ["event"] if describe else ["event", "step", "steps", "checkpoint"]
    return [InferRequestedOutput(name) for name in names]


def event_of(result: InferResult) -> dict[str, Any]:
    """A response as TorchServe's handler tells the same: an event, or an answer."""
    event: dict[str, Any] = dict(json.loads(_first(result, "metadata") or b"{}"))
    for name in ("step", "steps"):
        value = _first(result, name)
        if value is not None:
            event[name] = int(value)
    kind, checkpoint = _first(result, "event"), _first(result, "checkpoint")
    if kind is not None:
        event["type"] = kind.decode()
    if checkpoint is not None:
        event["checkpoint"] = checkpoint.decode()
    images = result.as_numpy("images")
    if images is not None:
        files = [image.decode() for image in images.ravel()]
        event |= {"image": files[0]} if event.get("type") == "preview" else {"images": files}
    return event


def error_of(message: str, code: str = "") -> UpstreamError:
    """What an error of Triton's means, in the words that a TorchServe's errors have.

    Args:
        message: a problem document from the model, or words of Triton or of gRPC.
        code: gRPC's name for it, empty in a stream.
    """
    problem = _problem(message)
    if problem is not None:
        retry_after = seconds_of(problem.pop("retry_after", None))
        error = AnswerError(problem["status"], problem, problem["code"], retry_after)
        error.device_seconds = float(problem.pop("device_seconds", 0.0))
        return error
    lower = message.lower()
    if _DEAD in lower:
        # As TorchServe says that a worker ended with a request in its hands.
        return AnswerError(507, None, "the worker has ended", None)
    if any(words in lower for words in _REFUSALS):
        return AnswerError(503, None, message, None)
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
        sent = not any(words in lower for words in _NEVER_SENT)
        return ConnectionLostError(f"the model server was lost: {code}", sent=sent)
    if code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"):
        refused = UpstreamError(f"the model server refused the request: {message}")
        return AnswerError(400, refused.problem(), code, None)
    return AnswerError(500, None, message, None)


def _problem(message: str) -> dict[str, Any] | None:
    try:
        document = json.loads(message)
    except ValueError:
        return None
    whole = isinstance(document, dict) and {"status", "code", "detail"} <= document.keys()
    return document if whole else None


def _first(result: InferResult, name: str) -> Any:
    """An output's first element, None where the response has none."""
    found = result.as_numpy(name)
    return None if found is None or not found.size else found.ravel()[0]


def newest(rows: Iterable[Any]) -> dict[str, Any]:
    """Of each model the row of the repository's index that tells of its newest version at work, or
    else of its newest one."""
    found: dict[str, Any] = {}
    for row in rows:
        old = found.get(row.name)
        if old is None or _rank(row) > _rank(old):
            found[row.name] = row
    return found


def _rank(row: Any) -> tuple[bool, int]:
    return row.state == "READY", int(row.version or 0)
