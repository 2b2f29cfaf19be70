"""A picture request as Triton's tensors, and its answer as tensors again."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffusion_core.errors import InvalidFieldError, MalformedBodyError
from diffusion_core.request_fields import FILE_FIELDS
from diffusion_core.tracing import HEADER
from diffusion_engine.answers import Answer
from diffusion_engine.images import to_image

Tensors = dict[str, NDArray[Any]]

# Parameters that Triton's clients set for Triton itself.
_TRITONS_OWN = frozenset({"triton_enable_empty_final_response"})

_ENCODINGS = ("binary", "base64")

# Parts of an event that have an output of their own; the rest is in `metadata`.
_OWN_OUTPUT = ("type", "step", "steps", "image", "checkpoint")


@dataclass(frozen=True, slots=True)
class Asked:
    """What one Triton request asks for.

    Attributes:
        rows: the fields of each picture request in it, as those of a form.
        text: whether files travel as base64, for JSON cannot hold their bytes.
        describe: whether it asks for the model's description instead of pictures.
        outputs: the names of the outputs that its client wants.
        traceparent: the span that the request is part of.
    """

    rows: tuple[dict[str, str | bytes], ...]
    text: bool
    describe: bool
    outputs: frozenset[str]
    traceparent: str | None = None


def asked(
    inputs: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any], outputs: Collection[str]
) -> Asked:
    """What inputs of shape [rows, 1] ask for.

    Request parameters are fields as well: what a `generate` request names beside the inputs, a
    typo among them, arrives as one.

    Raises `InvalidFieldError` or `MalformedBodyError` naming the input at fault.
    """
    columns = dict(inputs)
    count = max((len(values) for values in columns.values()), default=1)
    for name in parameters.keys() - _TRITONS_OWN - {HEADER}:
        if name in columns:
            raise MalformedBodyError(f"{name}: is both an input and a parameter", field=name)
        columns[name] = np.full((count, 1), parameters[name], dtype=np.object_)
    text = _encoding(columns.pop("encoding", None)) == "base64"
    describe = "true" in _column("describe", columns.pop("describe", np.array([False])), text)
    names = tuple(columns)
    values = [_column(name, columns[name], text) for name in names]
    rows = tuple(dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
    return Asked(rows or ({},), text, describe, frozenset(outputs), parameters.get(HEADER))


def pictures(
    answers: Sequence[Answer], first_images: Sequence[torch.Tensor], request: Asked
) -> Tensors:
    """The outputs of a request that went well: one row for each of its answers.

    Args:
        answers: the JSON answers of its rows.
        first_images: the first image of each, [3, H, W] in [0, 1].

    Raises `InvalidFieldError` where rows differ in size or number of images: a tensor is a block.
    """
    documents = [json.loads(answer.body) for answer in answers]
    for name in ("width", "height", "num_images"):
        values = {_shape_of(document, name) for document in documents}
        if len(values) > 1:
            raise InvalidFieldError(
                f"{name}: must be the same in all rows of a request", field=name
            )
    files = [[_file(image, request.text) for image in one.pop("images")] for one in documents]
    for document in documents:
        del document["image"]
    tensors: Tensors = {
        "images": np.array(files, dtype=np.object_),
        "seed": np.array([document["seeds"] for document in documents], dtype=np.int64),
        "metadata": texts([json.dumps(document) for document in documents]),
    }
    if "image" in request.outputs and not request.text:
        tensors["image"] = np.stack([np.asarray(to_image(image)) for image in first_images])
    return tensors


def progress(event: Mapping[str, Any], request: Asked) -> Tensors:
    """The outputs that tell of an event on the way: a step, a preview or a checkpoint."""
    tensors: Tensors = {
        "event": texts([event["type"]]),
        "step": np.array([[event["step"]]], dtype=np.int32),
    }
    if "steps" in event:
        tensors["steps"] = np.array([[event["steps"]]], dtype=np.int32)
    for name, output in (("image", "images"), ("checkpoint", "checkpoint")):
        if name in event:
            tensors[output] = np.array([[_file(event[name], request.text)]], dtype=np.object_)
    rest = {name: value for name, value in event.items() if name not in _OWN_OUTPUT}
    tensors["metadata"] = texts([json.dumps(rest)])
    return tensors


def texts(values: Sequence[str]) -> NDArray[Any]:
    """A string tensor [rows, 1]."""
    return np.array([[value.encode()] for value in values], dtype=np.object_)


def _encoding(values: NDArray[Any] | None) -> str:
    chosen = {"binary"} if values is None else {_text("encoding", one) for one in values.ravel()}
    if len(chosen) != 1 or not chosen <= set(_ENCODINGS):
        raise InvalidFieldError(
            "encoding: must be binary or base64, one for all rows",
            field="encoding",
            bound={"expected": list(_ENCODINGS)},
        )
    return chosen.pop()


def _column(name: str, values: NDArray[Any], text: bool) -> list[str | bytes]:
    flat = values.ravel()
    if values.dtype.kind != "O":
        # numpy writes a float32 in as few digits as tell it apart: 3.3 stays the 3.3 of a JSON
        # request, where widening it would make it 3.2999999523.
        return [str(value).lower() for value in flat]
    if name in FILE_FIELDS and not text:
        return [value if isinstance(value, bytes) else str(value).encode() for value in flat]
    return [_text(name, value) for value in flat]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else json.dumps(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedBodyError(f"{name}: is not UTF-8 text", field=name) from None


def _shape_of(document: Mapping[str, Any], name: str) -> int:
    return len(document["images"]) if name == "num_images" else int(document[name])


def _file(encoded: str, text: bool) -> bytes:
    return encoded.encode() if text else base64.b64decode(encoded)
