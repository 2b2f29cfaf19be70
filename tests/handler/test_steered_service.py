"""An archive with a ControlNet and an IP-Adapter as a server sees it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from diffusion_engine.checkpoint import KEY_VARIABLE
from handler.test_images import base64_of, bomb, file
from handler_client import Client, Raw, open_client
from tiny import tiny_stable_diffusion
from tiny_conditioning import save_tiny_ip_adapter, tiny_controlnet
from unpacked import unpack

PICTURE = base64_of(file())
PLAIN: dict[str, Any] = {"prompt": "a cat", "seed": 1, "num_inference_steps": 4}
CONTROLLED = {**PLAIN, "control_image": PICTURE}
REFERRED = {**PLAIN, "ip_adapter_image": base64_of(file((50, 20)))}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("steered")
    pipeline = tiny_stable_diffusion()
    tiny_controlnet(pipeline.unet).save_pretrained(folder / "controlnets" / "canny")
    save_tiny_ip_adapter(folder / "ip_adapter", pipeline.unet)
    places = {
        "weights": "ip_adapter/ip_adapter.safetensors",
        "image_encoder": "ip_adapter/image_encoder",
    }
    unpack(folder, pipeline, controlnets={"canny": "controlnets/canny"}, ip_adapter=places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "ab" * 32)
        opened = open_client(folder)
        yield opened
        assert opened.handler.service is not None
        opened.handler.service.close()


def drawn(client: Client, fields: Any) -> Image.Image:
    status, kind, body = client.one(fields, accept="image/png")
    assert (status, kind) == (200, "image/png"), body
    return Image.open(io.BytesIO(body)).convert("RGB")


def test_a_mixed_batch_draws_what_each_draws_alone(client: Client) -> None:
    rows = [
        PLAIN,
        CONTROLLED,
        REFERRED,
        {**CONTROLLED, **REFERRED, "ip_adapter_scale": 0.4},
        {**CONTROLLED, "image": base64_of(file((32, 32), "L")), "num_images": 2},
        {**CONTROLLED, "image": PICTURE, "mask_image": base64_of(file(mode="L"))},
    ]
    headers = [{"accept": "application/json"} for _ in rows]
    together = client.batch(*rows, headers=headers)
    assert [answer[0] for answer in together] == [200] * len(rows)
    alone = [client.one(row, accept="application/json")[2] for row in rows]
    for ours, own in zip([answer[2] for answer in together], alone, strict=True):
        assert ours["seed"] == own["seed"]
        assert _apart(ours["image"], own["image"]) <= 1
    assert len({body["image"] for body in alone}) == len(rows)


def _apart(one: str, other: str) -> int:
    import base64

    images = [
        Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in (one, other)
    ]
    extrema: Any = ImageChops.difference(*images).getextrema()
    return int(max(high for _, high in extrema))


def test_a_form_s_files(client: Client) -> None:
    fields = {
        "prompt": b"a cat",
        "seed": b"1",
        "num_inference_steps": b"4",
        "control_image": file(),
    }
    assert drawn(client, Raw(fields)).tobytes() == drawn(client, CONTROLLED).tobytes()


def test_a_control_image_of_another_size_is_drawn_to_the_picture_s(client: Client) -> None:
    wide = {**CONTROLLED, "control_image": base64_of(file((64, 16))), "width": 48, "height": 24}
    assert drawn(client, wide).size == (48, 24)


@pytest.mark.parametrize("field", ["control_image", "ip_adapter_image"])
@pytest.mark.parametrize(
    "data",
    [bomb(0, 0), bomb(20_000, 20_000), bomb(64, 64), file()[:60], b"text"],
    ids=["0x0", "20000x20000", "no pixels", "cut", "text"],
)
def test_bad_pictures_are_refused_by_name(client: Client, field: str, data: bytes) -> None:
    bad, good = client.batch({**PLAIN, field: base64_of(data)}, CONTROLLED)
    assert (bad[0], good[0]) == (422, 200)
    assert bad[2]["field"] == field


def test_it_is_described(client: Client) -> None:
    service = client.handler.service
    assert service is not None
    about = service.describe()
    assert about["controlnets"] == ["canny"]
    assert about["image_prompts"] is True
    properties = about["request_schema"]["properties"]
    assert {"control_image", "controlnet", "ip_adapter_image"} <= properties.keys()


def test_a_checkpoint_belongs_to_its_pictures(client: Client) -> None:
    service = client.handler.service
    assert service is not None
    sealer = service._sealer
    assert sealer is not None
    from diffusion_engine.checkpoint import request_digest

    parsed = [
        service.schema.parse_json(fields)
        for fields in (
            PLAIN,
            CONTROLLED,
            {**CONTROLLED, "control_image": base64_of(file(mode="L"))},
            {**CONTROLLED, "control_guidance_end": 0.5},
            REFERRED,
        )
    ]
    assert len({request_digest(request) for request in parsed}) == len(parsed)
