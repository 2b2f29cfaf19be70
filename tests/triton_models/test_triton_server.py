"""A real Triton server on the CPU, asked with Triton's own clients over HTTP and gRPC."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as grpc
import tritonclient.http as http
from PIL import Image
from triton_clients import (
    Stream,
    apart,
    in_flight,
    inputs,
    over_grpc,
    over_http,
    pixels,
    problem,
    scrape,
    wait_until,
    write_repository,
)
from tritonclient.utils import InferenceServerException

from diffusion_engine.metric_families import flattened
from handler_client import open_client
from tiny import tiny_stable_diffusion
from triton_serving.server import RunningTriton
from unpacked import unpack

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def torchserves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """The picture that TorchServe's handler gives for the same weights."""
    folder = tmp_path_factory.mktemp("torchserve") / "archive"
    client = open_client(unpack(folder, tiny_stable_diffusion()))

    def draw(**fields: Any) -> Any:
        status, _, body = client.one({"prompt": "a heart", **fields}, Accept="image/png")
        assert status == 200, body
        return np.asarray(Image.open(io.BytesIO(body)))

    yield draw
    assert client.handler.service is not None
    client.handler.service.close()


ASKED = [
    {"seed": 7},
    {"seed": 8, "num_inference_steps": 9, "guidance_scale": 3.3},
    {"seed": 9, "width": 64, "negative_prompt": "blue"},
]


@pytest.mark.parametrize("fields", ASKED)
@pytest.mark.parametrize("ask", [over_http, over_grpc])
def test_the_picture_that_torchserve_gives(
    triton: RunningTriton, torchserves: Callable[..., Any], ask: Callable[..., Any], fields: Any
) -> None:
    result = ask(triton, **fields)
    assert apart(pixels(result), torchserves(**fields)) <= 1
    assert (result.as_numpy("image")[0] == pixels(result)).all()
    assert result.as_numpy("seed").tolist() == [[fields["seed"]]]


def test_a_mixed_batch_and_one_that_is_bad(
    triton: RunningTriton, torchserves: Callable[..., Any]
) -> None:
    mixed = [{"seed": seed, "num_inference_steps": 20 + 3 * seed} for seed in range(6)]
    bad = {"num_inference_steps": 100_000}

    def go(number: int) -> Any:
        ask = over_http if number % 2 else over_grpc
        try:
            return ask(triton, **(bad if number == 6 else mixed[number]))
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(7) as pool:
        *results, failed = pool.map(go, range(7))
    assert problem(failed)["field"] == "num_inference_steps"
    assert problem(failed)["status"] == 422
    assert failed.status() == "StatusCode.INVALID_ARGUMENT"
    for fields, result in zip(mixed, results, strict=True):
        assert apart(pixels(result), torchserves(**fields)) <= 1


def test_requests_of_different_inputs_share_denoiser_calls(triton: RunningTriton) -> None:
    """Triton's batcher keeps them apart; the engine does not."""
    before = counted(triton)
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(over_http, triton, num_inference_steps=200),
            pool.submit(over_http, triton, num_inference_steps=200, seed=1),
            pool.submit(over_http, triton, num_inference_steps=200, negative_prompt="x"),
            pool.submit(over_http, triton, num_inference_steps=200, guidance_scale=2.0),
        ]
        for job in jobs:
            job.result()
    # Some of what was drawn before may have been told meanwhile.
    wait_until(lambda: counted(triton)["steps"] - before["steps"] >= 800)
    after = counted(triton)
    assert after["denoiser_calls"] - before["denoiser_calls"] < 600


def counted(triton: RunningTriton) -> dict[str, float]:
    names = ("images", "steps", "denoiser_calls")
    scraped = scrape(triton)
    return {name: scraped.total(f"diffusion_{name}_total", model="tiny") for name in names}


def test_every_metric_of_a_worker_is_in_tritons_scrape(triton: RunningTriton) -> None:
    over_http(triton)
    wait_until(lambda: counted(triton)["images"] > 0)
    told = {name for name, _ in scrape(triton).samples}
    ours = {name for name in flattened() if name.startswith("diffusion_")}
    # Those of a GPU's memory have nothing to tell here.
    assert ours - told <= {"diffusion_worker_device_memory_bytes"}
    assert {"nv_inference_request_success", "nv_inference_count"} <= told


def test_a_grpc_stream_tells_each_step(
    triton: RunningTriton, torchserves: Callable[..., Any]
) -> None:
    *steps, last = Stream(triton, num_inference_steps=12, seed=3, preview_every=6).responses()
    progress = [one for one in steps if one.as_numpy("event").item() == b"progress"]
    assert [one.as_numpy("step").item() for one in progress] == list(range(1, 13))
    previews = [one for one in steps if one.as_numpy("event").item() == b"preview"]
    assert [one.as_numpy("step").item() for one in previews] == [6]
    assert last.as_numpy("event").item() == b"completed"
    assert apart(pixels(last), torchserves(num_inference_steps=12, seed=3)) <= 1


def test_a_bad_stream_is_an_error(triton: RunningTriton) -> None:
    with pytest.raises(InferenceServerException) as caught:
        Stream(triton, guidance_scale=1000.0).responses()
    assert problem(caught.value)["field"] == "guidance_scale"


def test_http_infer_refuses_the_decoupled_model(triton: RunningTriton) -> None:
    with pytest.raises(InferenceServerException, match="decoupled"):
        over_http(triton, "tiny_stream")


def test_generate_stream(triton: RunningTriton, torchserves: Callable[..., Any]) -> None:
    body = {"prompt": "a heart", "seed": 4, "num_inference_steps": 5, "encoding": "base64"}
    url = f"{triton.http}/v2/models/tiny_stream/generate_stream"
    with requests.post(url, json=body, stream=True, timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    assert [event["step"] for event in events[:-1]] == [1, 2, 3, 4, 5]
    image = Image.open(io.BytesIO(base64.b64decode(events[-1]["images"])))
    assert apart(np.asarray(image), torchserves(seed=4, num_inference_steps=5)) <= 1


def test_generate_takes_json_and_names_a_typo(triton: RunningTriton) -> None:
    url = f"{triton.http}/v2/models/tiny/generate"
    body = {"prompt": "a heart", "seed": 4, "encoding": "base64"}
    answer = requests.post(url, json=body, timeout=60)
    assert answer.status_code == 200
    assert answer.json()["seed"] == 4
    wrong = requests.post(url, json={**body, "guidence_scale": 2}, timeout=60)
    assert wrong.status_code == 400
    assert json.loads(wrong.json()["error"])["field"] == "guidence_scale"


def test_a_grpc_client_that_cancels_frees_its_place(triton: RunningTriton) -> None:
    def cancelled() -> float:
        return scrape(triton).total("diffusion_errors_total", model="tiny", kind="cancelled")

    ended, before = threading.Event(), cancelled()
    with grpc.InferenceServerClient(triton.grpc) as client:
        fields = inputs(grpc, prompt="a heart", num_inference_steps=900)
        call = client.async_infer("tiny", fields, callback=lambda result, error: ended.set())
        wait_until(lambda: in_flight(triton) == 1)
        call.cancel()
        assert ended.wait(10)
        wait_until(lambda: in_flight(triton) == 0)
    wait_until(lambda: cancelled() - before == 1)


def test_the_ensemble(triton: RunningTriton, torchserves: Callable[..., Any]) -> None:
    result = over_grpc(triton, "tiny_ensemble", seed=5)
    assert result.as_numpy("thumbnail").shape == (1, 32, 32, 3)
    assert apart(pixels(result), torchserves(seed=5)) <= 1


def test_a_new_version_takes_over_and_no_request_is_lost(
    triton: RunningTriton, repository: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        stop = threading.Event()

        def ask_on() -> int:
            count = 0
            while not stop.is_set():
                result = over_grpc(triton, num_inference_steps=40, seed=1)
                assert result.as_numpy("images") is not None
                count += 1
            return count

        jobs = [pool.submit(ask_on) for _ in range(3)]
        write_repository(repository.parent, repository.parent / "pipeline-elsewhere", "2")
        try:
            load(triton)
            over_grpc(triton)
        finally:
            stop.set()
        assert sum(job.result() for job in jobs) > 0
    assert over_grpc(triton).get_response().model_version == "2"


def test_loading_replaces_a_killed_worker(triton: RunningTriton) -> None:
    """Triton starts no other by itself, and what was in hand is never answered."""
    with ThreadPoolExecutor(1) as pool:
        doomed = pool.submit(over_grpc, triton, limit_s=10, num_inference_steps=900)
        wait_until(lambda: doomed.done() or in_flight(triton) == 1)
        assert not doomed.done(), doomed.exception()
        for worker in psutil.Process(triton.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any("/tiny/" in part for part in worker.cmdline()):
                    worker.kill()
        with pytest.raises(InferenceServerException):
            doomed.result(60)
    with pytest.raises(InferenceServerException, match="not healthy"):
        in_flight(triton)
    load(triton)
    assert over_grpc(triton).as_numpy("images") is not None


def load(triton: RunningTriton) -> None:
    address = triton.http.removeprefix("http://")
    with http.InferenceServerClient(address, network_timeout=300) as client:
        client.load_model("tiny")


def test_prompts_stay_out_of_the_log(triton: RunningTriton) -> None:
    marked = "a marzipan hippogriff"
    over_http(triton, prompt=marked)
    with pytest.raises(InferenceServerException):
        over_grpc(triton, prompt=marked, num_inference_steps=0)
    folder = Path(psutil.Process(triton.pid).cwd()).parent
    assert "marzipan" not in (folder / "logs" / "triton.log").read_text(errors="replace")
