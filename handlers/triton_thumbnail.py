"""TritonPythonModel that makes pictures smaller: the second step of the example ensemble."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from PIL import Image


class TritonPythonModel:
    """Reduces each image [rows, height, width, 3] to `longest_side` pixels, a parameter."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the parameter from config.pbtxt."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._longest_side = int(parameters["longest_side"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        images = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
        thumbnails = np.stack([self._reduce(image) for image in images])
        return pb_utils.InferenceResponse([pb_utils.Tensor("thumbnail", thumbnails)])

    def _reduce(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(pixels)
        image.thumbnail((self._longest_side, self._longest_side))
        return np.asarray(image)
