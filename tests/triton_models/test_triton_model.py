"""TritonPythonModel, called as Triton's backend calls it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from triton_calls import Request, problem
from triton_python_backend_utils import MetricFamily

from diffusion_core.errors import ConfigError
from diffusion_core.identity import CONFIG_NAME
from tiny import tiny_stable_diffusion
from triton_model import TritonPythonModel
from unpacked import unpack


def open_model(folder: Path, *, decoupled: bool, name: str = "tiny") -> TritonPythonModel:
    model = TritonPythonModel()
    model.initialize(
        {
            "model_name": name,
            "model_repository": str(folder),
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_config": json.dumps({"model_transaction_policy": {"decoupled": decoupled}}),
        }
    )
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "tiny"
    unpack(folder / "1", tiny_stable_diffusion())
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[TritonPythonModel]:
    opened = open_model(folder, decoupled=False)
    yield opened
    opened.finalize()


@pytest.fixture(scope="module")
def stream_folder(folder: Path) -> Path:
    copy = Path(shutil.copytree(folder, folder.parent / "tiny_stream"))
    config = copy / "1" / CONFIG_NAME
    config.write_text(
        yaml.safe_dump({**yaml.safe_load(config.read_text()), "continuousBatching": True})
    )
    return copy


@pytest.fixture(scope="module")
def streaming(stream_folder: Path) -> Iterator[TritonPythonModel]:
    opened = open_model(stream_folder, decoupled=True)
    yield opened
    opened.finalize()


def pixels(response: Any, row: int = 0) -> Any:
    assert response.error is None, response.error
    return np.asarray(Image.open(io.BytesIO(response.outputs["images"][row, 0])))


def test_a_picture_as_a_file_and_as_pixels(model: TritonPythonModel) -> None:
    request = Request(prompt="a cat", seed=7)
    model.execute([request])
    response = request.sender.one()
    assert (pixels(response) == response.outputs["image"][0]).all()
    assert response.outputs["seed"].tolist() == [[7]]
    assert json.loads(response.outputs["metadata"][0, 0])["num_inference_steps"] == 3


def test_a_mixed_batch_answers_each_for_itself(model: TritonPythonModel) -> None:
    alone = [Request(prompt="a cat", seed=seed, num_inference_steps=3 + seed) for seed in (1, 2)]
    for request in alone:
        model.execute([request])
        request.sender.all()
    together = [
        Request(prompt="a cat", seed=1, num_inference_steps=4),
        Request(prompt="a cat", num_inference_steps=100_000),
        Request(prompt="a cat", seed=2, num_inference_steps=5),
    ]
    model.execute(together)
    first, bad, second = (request.sender.one() for request in together)
    assert problem(bad)["field"] == "num_inference_steps"
    assert problem(bad)["bound"] == {"maximum": 100}
    assert bad.error.code == "INVALID_ARG"
    assert json.loads(first.outputs["metadata"][0, 0])["num_inference_steps"] == 4
    assert json.loads(second.outputs["metadata"][0, 0])["num_inference_steps"] == 5


def test_rows_of_one_request(model: TritonPythonModel) -> None:
    request = Request(prompt=["a cat", "a dog", "a cat"], seed=[1, 1, 1])
    model.execute([request])
    response = request.sender.one()
    assert (pixels(response, 0) == pixels(response, 2)).all()
    assert (pixels(response, 0) != pixels(response, 1)).any()


def test_one_bad_row_fails_its_request(model: TritonPythonModel) -> None:
    request = Request(prompt=["a cat", "a dog"], width=[32, 33])
    model.execute([request])
    assert problem(request.sender.one())["field"] == "width"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "parameters": {"guidence_scale": 3}}, "guidence_scale"),
        ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "x", "preview_every": 2}, "preview_every"),
        ({"prompt": "x", "image": b"no image"}, "image"),
    ],
)
def test_what_is_refused_is_named(model: TritonPythonModel, fields: Any, named: str) -> None:
    request = Request(**fields)
    model.execute([request])
    assert problem(request.sender.one())["field"] == named


def test_only_the_outputs_asked_for(model: TritonPythonModel) -> None:
    request = Request(prompt="a cat", outputs=("seed",))
    model.execute([request])
    assert list(request.sender.one().outputs) == ["seed"]


def test_a_client_that_has_gone_frees_its_place(model: TritonPythonModel) -> None:
    request = Request(prompt="a cat", num_inference_steps=100, num_images=4)
    request.sender.gone = True
    model.execute([request])
    response = request.sender.one()
    assert problem(response)["status"] == 499
    assert response.error.code == "GONE"


def test_one_that_cannot_be_sent_keeps_nobody_waiting(model: TritonPythonModel) -> None:
    lost, other = Request(prompt="a cat"), Request(prompt="a cat")
    tried = []

    def send(*response: Any, **flags: Any) -> None:
        tried.append(flags)
        raise RuntimeError("the client's connection is broken")

    lost.sender.send = send  # type: ignore[method-assign]
    model.execute([lost, other])
    assert other.sender.one().error is None
    model.execute([again := Request(prompt="a cat")])
    assert again.sender.one().error is None
    assert len(tried) == 2


def test_describe(model: TritonPythonModel) -> None:
    request = Request(describe=True)
    model.execute([request])
    assert json.loads(request.sender.one().outputs["metadata"][0, 0])["default_scheduler"]


def test_a_stream_tells_every_step_and_ends_with_the_picture(
    model: TritonPythonModel, streaming: TritonPythonModel
) -> None:
    plain, stream = (Request(prompt="a cat", seed=5, num_inference_steps=6) for _ in range(2))
    model.execute([plain])
    streaming.execute([stream])
    *steps, last = stream.sender.all()
    assert [one.outputs["step"].item() for one in steps] == [1, 2, 3, 4, 5, 6]
    assert {one.outputs["steps"].item() for one in steps} == {6}
    assert last.outputs["event"].item() == b"completed"
    assert (pixels(last) == pixels(plain.sender.one())).all()


def test_a_stream_carries_previews(streaming: TritonPythonModel) -> None:
    request = Request(prompt="a cat", num_inference_steps=4, preview_every=2)
    streaming.execute([request])
    previews = [one for one in request.sender.all() if one.outputs["event"].item() == b"preview"]
    assert [one.outputs["step"].item() for one in previews] == [2]
    assert pixels(previews[0]).shape == (32, 32, 3)


def test_a_bad_stream_is_one_error(streaming: TritonPythonModel) -> None:
    request = Request(prompt=" ")
    streaming.execute([request])
    assert problem(request.sender.one())["field"] == "prompt"


def test_metrics_reach_triton(folder: Path) -> None:
    model = open_model(folder, decoupled=False, name="counted")
    requests = [Request(prompt="a cat", num_images=2), Request(prompt="")]
    model.execute(requests)
    for request in requests:
        request.sender.one()
    model.finalize()
    assert MetricFamily.values["diffusion_images_total", "counted"] == 2
    assert MetricFamily.values["diffusion_requests_total", "counted,422"] == 1


def test_finalize_waits_for_those_under_way(folder: Path) -> None:
    model = open_model(folder, decoupled=False)
    requests = [Request(prompt="a cat", num_inference_steps=30) for _ in range(3)]
    model.execute(requests)
    model.finalize()
    assert [request.sender.one().error for request in requests] == [None] * 3


def test_configs_that_disagree_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="decoupled"):
        open_model(folder, decoupled=True)
