"""Triton's own clients, asking for pictures of the tiny pipeline."""

from __future__ import annotations

import io
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image
from tritonclient.utils import InferenceServerException

from scraped import Scrape
from served import ROOT
from triton_serving.server import RunningTriton

DATATYPES = {"num_inference_steps": "INT32", "width": "INT32", "seed": "INT64"}


def write_repository(folder: Path, pipeline: Path, version: str) -> None:
    """Writes `tiny` into folder/repository as the command does."""
    command = [sys.executable, "scripts/triton_repo.py", "--name", "tiny", "--version", version]
    command += ["--model", str(pipeline), "--repository", str(folder / "repository")]
    command += ["--config", str(folder / "tiny.yaml")]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def inputs(client: Any, **fields: Any) -> list[Any]:
    made = []
    for name, value in fields.items():
        values = [one.encode() if isinstance(one, str) else one for one in np.atleast_1d(value)]
        kind = {int: "INT32", float: "FP32", bool: "BOOL"}.get(type(value), "BYTES")
        datatype = DATATYPES.get(name, kind)
        dtype = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "BOOL": np.bool_}
        array = np.array(values, dtype=dtype.get(datatype, np.object_)).reshape(-1, 1)
        made.append(client.InferInput(name, array.shape, datatype))
        made[-1].set_data_from_numpy(array)
    return made


def over_http(triton: RunningTriton, model: str = "tiny", **fields: Any) -> Any:
    # A client each: its connections belong to the thread that made it.
    with http.InferenceServerClient(triton.http.removeprefix("http://")) as client:
        return client.infer(model, inputs(http, **{"prompt": "a heart", **fields}))


def over_grpc(
    triton: RunningTriton, model: str = "tiny", limit_s: float = 100, **fields: Any
) -> Any:
    asked = inputs(grpc, **{"prompt": "a heart", **fields})
    with grpc.InferenceServerClient(triton.grpc) as client:
        return client.infer(model, asked, client_timeout=limit_s)


class Stream:
    """A gRPC stream of one request to the decoupled model."""

    def __init__(self, triton: RunningTriton, **fields: Any) -> None:
        self.told: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client = grpc.InferenceServerClient(triton.grpc)
        self.client.start_stream(callback=lambda result, error: self.told.put((result, error)))
        self.client.async_stream_infer(
            "tiny_stream",
            inputs(grpc, **{"prompt": "a heart", **fields}),
            enable_empty_final_response=True,
        )

    def responses(self) -> list[Any]:
        found = []
        try:
            while True:
                result, error = self.told.get(timeout=60)
                if error is not None:
                    raise error
                if result.as_numpy("event") is not None:
                    found.append(result)
                if result.get_response().parameters["triton_final_response"].bool_param:
                    return found
        finally:
            self.client.stop_stream()
            self.client.close()


def pixels(result: Any, row: int = 0) -> Any:
    return np.asarray(Image.open(io.BytesIO(result.as_numpy("images")[row, 0])))


def problem(error: InferenceServerException) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(error.message())
    return document


def apart(one: Any, other: Any) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def scrape(triton: RunningTriton) -> Scrape:
    return Scrape(requests.get(triton.metrics, timeout=10).text)


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.1)


def in_flight(triton: RunningTriton) -> int:
    with grpc.InferenceServerClient(triton.grpc) as client:
        result = client.infer("tiny", inputs(grpc, describe=True))
    return int(json.loads(result.as_numpy("metadata").item())["engine"]["in_flight"])
