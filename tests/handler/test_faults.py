"""Too little memory, lost devices, values that are not numbers: who is at fault fails, alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from handler_client import Client

GOOD = {"prompt": "a cat", "seed": 1, "guidance_scale": 1.0}


@pytest.fixture
def unet(client: Client) -> Iterator[Any]:
    """The shared UNet, whose forward a test may replace."""
    assert client.handler.service is not None
    model = client.handler.service.served.pipelines["text-to-image"].unet
    kept = model.forward
    yield model
    model.forward = kept


def fail_above(unet: Any, rows: int, error: Exception) -> None:
    forward: Callable[..., Any] = unet.forward

    def limited(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if sample.shape[0] > rows:
            raise error
        return forward(sample, *args, **kwargs)

    unet.forward = limited


def test_a_batch_that_does_not_fit_is_split(client: Client, unet: Any) -> None:
    fail_above(unet, 2, torch.OutOfMemoryError("CUDA out of memory"))
    answers = client.batch(*({**GOOD, "seed": seed} for seed in range(8)))
    assert [answer[0] for answer in answers] == [200] * 8


def test_a_request_that_does_not_fit_gets_507_alone(client: Client, unet: Any) -> None:
    forward = unet.forward

    def limited(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if sample.shape[-1] > 16:
            raise torch.OutOfMemoryError("out of memory")
        return forward(sample, *args, **kwargs)

    unet.forward = limited
    small, large, other = client.batch(GOOD, {**GOOD, "width": 64}, {**GOOD, "seed": 2})
    assert (small[0], large[0], other[0]) == (200, 507, 200)
    assert large[2]["code"] == "out_of_memory"


def test_the_rows_of_one_request_are_split_before_it_fails(client: Client, unet: Any) -> None:
    fail_above(unet, 1, MemoryError())
    assert client.one({**GOOD, "guidance_scale": 5.0, "num_images": 2})[0] == 200


def test_values_that_are_not_finite_fail_their_request(client: Client, unet: Any) -> None:
    forward = unet.forward

    def poisoned(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        (noise,) = forward(sample, *args, **kwargs)
        noise = noise.clone()
        noise[0] = float("nan")
        return (noise,)

    unet.forward = poisoned
    first, second = client.batch(GOOD, {**GOOD, "seed": 2})
    assert (first[0], second[0]) == (500, 200)
    assert "finite" in first[2]["detail"]


def test_a_model_that_raises_is_told_by_type_only(client: Client, unet: Any) -> None:
    fail_above(unet, 0, ValueError("a prompt of somebody's"))
    status, _, problem = client.one(GOOD)
    assert status == 500
    assert problem["detail"] == "the pipeline raised ValueError"


def test_a_lost_device_ends_the_process(tiny_folder: Path) -> None:
    # A real CUDA fault cannot be had without a GPU: its error text stands for it.
    program = f"""
import sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from handler_client import open_client
client = open_client(Path({str(tiny_folder)!r}))
unet = client.handler.service.served.pipelines["text-to-image"].unet
def broken(*args, **kwargs):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
unet.forward = broken
client.one({{"prompt": "a cat"}})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert ended.returncode == 70
