"""Requests that bring an image: image to image, inpainting, and images that must be refused."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from handler_client import Client, Raw


def file(size: tuple[int, int] = (32, 32), mode: str = "RGB", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


GOOD: dict[str, Any] = {"prompt": "a cat", "seed": 1, "image": base64_of(file())}


def test_an_image_is_taken_back_to_noise_by_strength(client: Client) -> None:
    status, _, body = client.one({**GOOD, "strength": 0.4, "num_inference_steps": 10})
    assert (status, body["width"], body["height"]) == (200, 32, 32)


def test_a_mask_means_inpainting(client: Client) -> None:
    assert client.one({**GOOD, "mask_image": base64_of(file(mode="L"))})[0] == 200


def test_all_tasks_share_calls(client: Client) -> None:
    assert client.handler.service is not None
    counts = client.handler.service.engine.forward.counts
    before = counts.denoiser_calls
    rows = [
        {"prompt": "a", "num_inference_steps": 4},
        {**GOOD, "num_inference_steps": 4, "strength": 1.0},
        {**GOOD, "mask_image": GOOD["image"], "num_inference_steps": 4, "strength": 1.0},
    ]
    assert [answer[0] for answer in client.batch(*rows)] == [200] * 3
    assert counts.denoiser_calls - before <= 7


def test_multipart_files_are_images(client: Client) -> None:
    fields = {"prompt": b"a cat", "image": file(kind="WEBP"), "seed": b"1", "strength": b"0.5"}
    assert client.one(Raw(fields))[0] == 200


def test_the_picture_is_as_large_as_asked(client: Client) -> None:
    body = client.one({**GOOD, "image": base64_of(file((100, 30))), "width": 48, "height": 24})[2]
    assert (body["width"], body["height"]) == (48, 24)


def test_an_odd_image_is_drawn_at_the_multiple_below(client: Client) -> None:
    body = client.one({**GOOD, "image": base64_of(file((45, 39)))})[2]
    assert (body["width"], body["height"]) == (40, 32)


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises width × height pixels and brings none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_the_least_strength_that_is_told_is_enough(client: Client, steps: int) -> None:
    row = {**GOOD, "num_inference_steps": steps, "strength": 0.1}
    status, _, problem = client.one(row)
    assert (status, problem["field"]) == (422, "strength")
    assert client.one({**row, "strength": problem["bound"]["minimum"]})[0] == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image": "not base64!"}, "image"),
        ({"image": base64_of(b"not an image")}, "image"),
        ({"image": 3}, "image"),
        ({"image": base64_of(file((400, 400)))}, "image"),
        ({"image": base64_of(file()[:60])}, "image"),
        ({"image": base64_of(bomb(20_000, 20_000))}, "image"),
        ({"image": base64_of(bomb(64, 64))}, "image"),
        ({"mask_image": base64_of(file()[:-30])}, "mask_image"),
        ({"strength": 0.0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"strength": 0.8, "num_inference_steps": 1}, "strength"),
        ({"image": None, "mask_image": base64_of(file())}, "image"),
        ({"image": None, "strength": 0.5}, "strength"),
    ],
)
def test_bad_images_are_refused_by_name(client: Client, fields: dict[str, Any], field: str) -> None:
    row = {name: value for name, value in {**GOOD, **fields}.items() if value is not None}
    bad, good = client.batch(row, GOOD)
    assert (bad[0], good[0]) == (422, 200)
    assert bad[2]["field"] == field
