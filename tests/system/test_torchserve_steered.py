"""Control images and reference pictures over HTTP: a live TorchServe draws diffusers' own."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from handler.test_images import bomb, file
from served import TINY_CONFIG, build
from serving.fleet import Fleet
from serving.server import Server
from tiny import tiny_stable_diffusion
from tiny_conditioning import save_tiny_ip_adapter, tiny_controlnet

pytestmark = [pytest.mark.system, pytest.mark.full]

PLAIN: dict[str, Any] = {"prompt": "a cat", "seed": 4, "num_inference_steps": 4}
EDGES = file()
REFERENCE = file((50, 20))


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.int16)


def own_picture(controlnet: Any) -> Any:
    """What diffusers' own ControlNet pipeline draws of the controlled request."""
    from diffusers import StableDiffusionControlNetPipeline

    pipeline = tiny_stable_diffusion()
    own = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=controlnet)
    own.set_progress_bar_config(disable=True)
    edges = Image.open(io.BytesIO(EDGES)).convert("RGB")
    (image,) = own(
        PLAIN["prompt"],
        image=edges,
        num_inference_steps=PLAIN["num_inference_steps"],
        width=32,
        height=32,
        generator=torch.Generator().manual_seed(PLAIN["seed"]),
    ).images
    return np.asarray(image, dtype=np.int16)


@pytest.mark.parametrize("mode", ["classic", "continuous"])
def test_steered_and_plain_requests_in_company(
    mode: str, server: Server, store: Path, tmp_path: Path
) -> None:
    pipeline = tiny_stable_diffusion()
    pipeline.save_pretrained(tmp_path / "pipeline")
    controlnet = tiny_controlnet(pipeline.unet)
    controlnet.save_pretrained(tmp_path / "canny")
    save_tiny_ip_adapter(tmp_path / "ip", pipeline.unet)
    handler = TINY_CONFIG["handler"] | {
        "controlnets": {"canny": str(tmp_path / "canny")},
        "ip_adapter": {
            "weights": str(tmp_path / "ip" / "ip_adapter.safetensors"),
            "image_encoder": str(tmp_path / "ip" / "image_encoder"),
        },
    }
    name, continuous = f"steered-{mode}", mode == "continuous"
    build(
        store,
        tmp_path / "pipeline",
        name,
        "no-archive",
        handler=handler,
        continuousBatching=continuous,
    )
    fleet = Fleet(server)
    fleet.register(name, name)
    url = f"{server.require().inference}/predictions/{name}"

    def post(how: dict[str, Any]) -> requests.Response:
        return requests.post(url, headers={"Accept": "image/png"}, timeout=120, **how)

    form = {field: str(value) for field, value in PLAIN.items()}
    asked: list[dict[str, Any]] = [
        {"json": PLAIN},
        {"data": form, "files": {"control_image": EDGES}},
        {"data": form, "files": {"ip_adapter_image": REFERENCE}},
        {"json": {**PLAIN, "control_image": base64.b64encode(bomb(20_000, 20_000)).decode()}},
    ]
    alone = [post(how) for how in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(post, asked))
    fleet.unregister(name)

    assert [one.status_code for one in alone] == [200, 200, 200, 422]
    assert [one.status_code for one in together] == [200, 200, 200, 422]
    assert together[3].json()["field"] == "control_image"
    drawn = [pixels(one.content) for one in alone[:3]]
    for mate, solo in zip(together[:3], drawn, strict=True):
        assert np.abs(pixels(mate.content) - solo).max() <= 1
    assert np.abs(drawn[1] - own_picture(controlnet)).max() <= 1
    assert np.abs(drawn[1] - drawn[0]).max() > 3
    assert np.abs(drawn[2] - drawn[0]).max() > 3
