"""OpenAI's client, the gateway and a real TorchServe that draws."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from PIL import Image, ImageChops

from diffusion_gateway.api.app import create_app
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Status
from diffusion_gateway.settings import EndpointSettings, GatewaySettings
from served import ask, build
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def direct(server: Server, fleet: Fleet, pipeline: Path, store: Path) -> str:
    """Where the model answers without the gateway."""
    build(store, pipeline, "flow", "no-archive", continuousBatching=True)
    fleet.register("flow", "flow")
    return f"{server.require().inference}/predictions/flow"


@pytest.fixture(scope="module")
def gateway(server: Server, direct: str, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    folder = tmp_path_factory.mktemp("gateway")
    addresses = server.require()
    endpoint = EndpointSettings(
        inference=addresses.inference,
        management=addresses.management,
    )
    return Gateway.of(
        GatewaySettings(
            endpoints=(endpoint,),
            store_url=f"sqlite:{folder / 'jobs.sqlite'}",
            results_url=f"file:{folder / 'results'}",
        )
    )


@pytest.fixture(scope="module")
def loop_and_url(gateway: Gateway) -> Iterator[tuple[asyncio.AbstractEventLoop, str]]:
    """The gateway's own loop, and where it listens."""
    config = uvicorn.Config(create_app(gateway), port=0, log_config=None, access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.05)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield running.servers[0].get_loop(), f"http://127.0.0.1:{port}/v1"
    running.should_exit = True
    thread.join()


@pytest.fixture
def client(
    loop_and_url: tuple[asyncio.AbstractEventLoop, str],
) -> Iterator[openai.OpenAI]:
    _, url = loop_and_url
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as made:
        yield made


def _image(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def _file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference in any channel."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


def test_a_picture_is_the_one_that_the_model_draws_for_its_seed(
    client: openai.OpenAI, direct: str
) -> None:
    answer = client.images.generate(
        prompt="a heart", n=2, size="32x32", extra_body={"seed": 5, "num_inference_steps": 4}
    )
    assert answer.data is not None
    for number, one in enumerate(answer.data):
        straight = ask(direct, seed=5 + number, num_inference_steps=4, width=32, height=32)
        theirs = Image.open(io.BytesIO(straight.content)).convert("RGB")
        assert _apart(_image(one.b64_json), theirs) <= 1


def test_a_stream_brings_previews_and_the_picture(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        prompt="a heart",
        stream=True,
        partial_images=3,
        extra_body={"seed": 6, "num_inference_steps": 60},
    )
    types = [event.type.rpartition(".")[2] for event in stream]
    assert types[-1] == "completed"
    assert 1 <= types.count("partial_image") <= 3


def test_an_edit_keeps_what_the_mask_does_not_free(client: openai.OpenAI) -> None:
    picture = client.images.generate(prompt="a heart", extra_body={"seed": 7})
    assert picture.data is not None
    source = _image(picture.data[0].b64_json)
    half = Image.new("RGBA", source.size, (0, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, source.width // 2, source.height))

    def edited(mask: Image.Image, steps: int = 20) -> Image.Image:
        answer = client.images.edit(
            image=_file(source),
            mask=_file(mask),
            prompt="a star",
            extra_body={"seed": 8, "strength": 1.0, "num_inference_steps": steps},
        )
        assert answer.data is not None
        return _image(answer.data[0].b64_json)

    def difference(changed: Image.Image, left: bool) -> float:
        edge = source.width // 2
        box = (0, 0, edge - 8, source.height) if left else (edge + 8, 0, *source.size)
        pixels = ImageChops.difference(changed, source).crop(box).convert("L")
        values = list(pixels.getdata())
        return sum(values) / len(values)

    kept = Image.new("RGBA", source.size, (0, 0, 0, 255))
    unchanged = edited(kept)
    changed = edited(half)
    # A picture that goes through the VAE and back loses a little everywhere.
    loss = difference(unchanged, left=False)
    assert difference(changed, left=False) <= loss + 2
    assert difference(changed, left=True) > loss + 4


def test_a_client_that_goes_away_frees_the_models_time(
    client: openai.OpenAI,
    gateway: Gateway,
    loop_and_url: tuple[asyncio.AbstractEventLoop, str],
) -> None:
    loop, _ = loop_and_url

    def jobs(status: Status) -> list[Job]:
        listing: Any = gateway.store.list(None, status, None, 50)
        return list(asyncio.run_coroutine_threadsafe(listing, loop).result(30))

    with pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="a heart", timeout=2, extra_body={"num_inference_steps": 900})
    end = time.monotonic() + 20
    while not jobs(Status.CANCELLED):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert jobs(Status.PROCESSING) == []
    begun = time.monotonic()
    client.images.generate(prompt="a heart", extra_body={"num_inference_steps": 2})
    assert time.monotonic() - begun < 20
