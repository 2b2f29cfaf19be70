"""A checkpoint whose UNet sees a picture and its mask: it can do nothing but inpaint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from handler.test_images import base64_of, file
from handler_client import Client, open_client
from tiny_pipelines import tiny
from unpacked import unpack

MASKED: dict[str, Any] = {
    "prompt": "a cat",
    "seed": 1,
    "image": base64_of(file()),
    "mask_image": base64_of(file(mode="L")),
}


@pytest.fixture(
    scope="module", params=["StableDiffusionInpaintPipeline", "StableDiffusion3InpaintPipeline"]
)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    wide = {"transformer": {"in_channels": 33}} if "3" in request.param else {}
    folder = tmp_path_factory.mktemp("inpainting")
    size = {"num_inference_steps": 2, "width": 32, "height": 32}
    opened = open_client(unpack(folder, tiny(request.param, **wide), defaults=size))
    yield opened
    assert opened.handler.service is not None
    opened.handler.service.close()


def test_it_draws_over_a_picture(client: Client) -> None:
    status, _, body = client.one(MASKED)
    assert (status, body["width"], body["height"]) == (200, 32, 32)


@pytest.mark.parametrize("left_out", [("image", "mask_image"), ("mask_image",), ("image",)])
def test_what_lacks_is_named(client: Client, left_out: tuple[str, ...]) -> None:
    fields = {name: value for name, value in MASKED.items() if name not in left_out}
    bad, good = client.batch(fields, MASKED)
    assert (bad[0], good[0]) == (422, 200)
    assert bad[2]["field"] == left_out[0]


def test_it_is_described_as_what_it_is(client: Client) -> None:
    service = client.handler.service
    assert service is not None
    about = service.describe()
    assert about["tasks"] == ["inpainting"]
    assert {"image", "mask_image"} <= set(about["request_schema"]["required"])
    assert about["engine"]["shares_calls"] is True
    assert about["engine"]["profile"]
