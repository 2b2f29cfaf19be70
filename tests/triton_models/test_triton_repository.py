"""What make triton-repo writes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from diffusion_core.identity import ArchiveRecord
from diffusion_core.model_config import ModelConfig, parse_model_config
from diffusion_core.request import GenerationRequest
from served import ROOT, TINY_CONFIG
from tiny import save_tiny_stable_diffusion
from triton_serving.configs import (
    decoupled_config,
    dynamic_config,
    ensemble_config,
    preferred_sizes,
    thumbnail_config,
)
from triton_tensors import asked


def parsed(text: str) -> Any:
    """The configuration as Triton itself reads it: its own protocol buffer."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def config(**settings: Any) -> ModelConfig:
    return parse_model_config(settings)


def test_dynamic_batching_is_the_model_configs() -> None:
    made = parsed(dynamic_config("m", config(batchSize=6, maxBatchDelay=100, jobQueueSize=70)))
    assert made.name == "m"
    assert made.max_batch_size == 6
    assert list(made.dynamic_batching.preferred_batch_size) == [1, 2, 4, 6]
    assert made.dynamic_batching.max_queue_delay_microseconds == 100_000
    assert made.dynamic_batching.default_queue_policy.max_queue_size == 70
    assert not made.model_transaction_policy.decoupled


def test_the_guides_sizes() -> None:
    assert preferred_sizes(4) == [1, 2, 4]
    assert preferred_sizes(1) == [1]


def test_the_decoupled_one_batches_nothing() -> None:
    made = parsed(decoupled_config("m", config()))
    assert made.model_transaction_policy.decoupled
    assert made.max_batch_size == 1
    assert not made.HasField("dynamic_batching")


@pytest.mark.parametrize(
    ("settings", "kind", "count", "gpus"),
    [
        ({}, "KIND_AUTO", 1, []),
        ({"deviceType": "gpu", "deviceIds": [0, 2]}, "KIND_GPU", 1, [0, 2]),
        ({"minWorkers": 2, "maxWorkers": 2, "handler": {"device": "cpu"}}, "KIND_CPU", 2, []),
        ({"handler": {"device": "cuda"}}, "KIND_GPU", 1, []),
    ],
)
def test_instances(settings: Any, kind: str, count: int, gpus: list[int]) -> None:
    (group,) = parsed(dynamic_config("m", config(**settings))).instance_group
    assert model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind) == kind
    assert group.count == count
    assert list(group.gpus) == gpus


def test_the_inputs_are_the_fields_of_a_request() -> None:
    kinds = {"str": "STRING", "int": "INT32", "float": "FP32", "bool": "BOOL"}
    kinds |= {"bytes": "STRING", "SourceImage": "STRING", "OutputFormat": "STRING"}
    kinds["dict[str, float]"] = "STRING"
    expected = {
        field.name: "TYPE_" + kinds[str(field.type).removesuffix(" | None")]
        for field in dataclasses.fields(GenerationRequest)
        # One is told by what a request holds, the other by the model that is asked.
        if field.name not in ("task", "stream")
    }
    expected |= {"seed": "TYPE_INT64", "encoding": "TYPE_STRING", "describe": "TYPE_BOOL"}
    made = parsed(dynamic_config("m", config()))
    kind_name = model_config_pb2.DataType.Name
    assert {one.name: kind_name(one.data_type) for one in made.input} == expected
    assert all(one.optional and list(one.dims) == [1] for one in made.input)
    assert asked({}, {}, [one.name for one in made.output]).outputs >= {"image", "images"}


def test_the_ensemble_leads_from_a_prompt_to_a_thumbnail() -> None:
    made = parsed(ensemble_config("e", config(), "p", "t"))
    drawing, reducing = made.ensemble_scheduling.step
    pictures = parsed(dynamic_config("p", config()))
    thumbnails = parsed(thumbnail_config("t", config()))
    assert set(drawing.input_map) <= {one.name for one in pictures.input}
    assert set(drawing.output_map) <= {one.name for one in pictures.output}
    assert set(reducing.input_map) == {one.name for one in thumbnails.input}
    assert {one.name for one in made.output} <= {
        *drawing.output_map.values(),
        *reducing.output_map.values(),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the tiny pipeline, whose folder is there no more."""
    folder = tmp_path_factory.mktemp("triton")
    pipeline = save_tiny_stable_diffusion(folder / "pipeline")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY_CONFIG))
    for version in ("1", "2"):
        done = write(folder, "--version", version)
        assert done.returncode == 0, done.stderr
    pipeline.rename(folder / "gone")
    return folder / "repository"


def write(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/triton_repo.py", "--name", "tiny"]
    command += ["--model", str(folder / "pipeline"), "--repository", str(folder / "repository")]
    command += ["--config", str(folder / "tiny.yaml"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_repository_holds_all_its_models_need(made: Path) -> None:
    models = {path.name for path in made.iterdir()}
    assert models == {"tiny", "tiny_stream", "tiny_thumbnail", "tiny_ensemble"}
    assert not [path for path in made.rglob("*") if path.is_symlink()]
    for name in ("tiny", "tiny_stream"):
        for version in ("1", "2"):
            folder = made / name / version
            record = ArchiveRecord.read(folder)
            held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
            assert held == {*record.files, "archive.json"}
            assert {"triton_model.py", "diffusion_core/errors.py"} <= held
            assert not {"diffusion_handler.py", "MAR-INF/MANIFEST.json"} & held
        parsed((made / name / "config.pbtxt").read_text())


def test_both_models_are_the_same_pipeline(made: Path) -> None:
    records = [ArchiveRecord.read(made / name / "1") for name in ("tiny", "tiny_stream")]
    assert records[0].identity == records[1].identity
    weights = "pipeline/unet/diffusion_pytorch_model.safetensors"
    same = [(made / name / "1" / weights).stat().st_ino for name in ("tiny", "tiny_stream")]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--version", "1"], "exists"), (["--version", "1.0"], "whole numbers")],
)
def test_what_cannot_be_is_said(made: Path, arguments: list[str], said: str) -> None:
    done = write(made.parent, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
