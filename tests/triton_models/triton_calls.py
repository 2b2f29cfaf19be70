"""Requests as Triton's Python backend hands them to a model, and what is sent back."""

from __future__ import annotations

import json
import queue
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

DTYPES = {"num_inference_steps": np.int32, "width": np.int32, "height": np.int32, "seed": np.int64}
ALL = ("image", "images", "seed", "metadata", "event", "step", "steps", "checkpoint")


def tensor(name: str, *values: Any) -> pb_utils.Tensor:
    """An input of shape [rows, 1], one row for each value."""
    kind = type(values[0])
    default = {int: np.int32, float: np.float32, bool: np.bool_}.get(kind, np.object_)
    array = np.array(
        [value.encode() if isinstance(value, str) else value for value in values],
        dtype=DTYPES.get(name, default),
    )
    return pb_utils.Tensor(name, array.reshape(-1, 1))


class Sender:
    """Keeps what is sent; `gone` says that the client has cancelled."""

    def __init__(self) -> None:
        self.gone = False
        self._sent: queue.Queue[tuple[Any, bool]] = queue.Queue()

    def send(self, response: Any, flags: int = 0) -> None:
        self._sent.put((response, flags == pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL))

    def is_cancelled(self) -> bool:
        return self.gone

    def all(self) -> list[Any]:
        """Every response, once the last has come."""
        responses, last = [], False
        while not last:
            response, last = self._sent.get(timeout=60)
            responses.append(response)
        assert self._sent.empty()
        return responses

    def one(self) -> Any:
        (response,) = self.all()
        return response


class Request:
    """Fields as inputs of one row; a list has a row for each of its values."""

    def __init__(
        self, *, outputs: tuple[str, ...] = ALL, parameters: Any = None, **fields: Any
    ) -> None:
        self.sender = Sender()
        rows = {name: one if isinstance(one, list) else [one] for name, one in fields.items()}
        self._inputs = [tensor(name, *values) for name, values in rows.items()]
        self._outputs = outputs
        self._parameters = json.dumps(parameters or {})

    def inputs(self) -> list[pb_utils.Tensor]:
        return self._inputs

    def parameters(self) -> str:
        return self._parameters

    def requested_output_names(self) -> set[str]:
        return set(self._outputs)

    def get_response_sender(self) -> Sender:
        return self.sender


def problem(response: Any) -> dict[str, Any]:
    """The problem document that a refusal holds."""
    assert response.error is not None, response.outputs
    document: dict[str, Any] = json.loads(response.error.message)
    return document
