from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_core.errors import OverloadedError
from diffusion_core.model_config import read_model_config
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_engine import profiling
from diffusion_engine.profile_store import FOLDER_VARIABLE, ProfileStore
from diffusion_engine.service import DiffusionService
from handler_client import Client, open_client
from tiny import tiny_stable_diffusion
from unpacked import unpack


class Calls:
    """The rows of every call that a denoiser answered."""

    def __init__(self, service: DiffusionService) -> None:
        self.rows: list[int] = []
        unet = service.served.pipelines["text-to-image"].unet
        unet.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample: torch.Tensor = args[0] if args else kwargs["sample"]
        self.rows.append(sample.shape[0])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "profiles"))
    return tmp_path


def start(archive: Path) -> tuple[DiffusionService, Calls]:
    service = DiffusionService(archive, read_model_config(archive / "model-config.yaml"))
    calls = Calls(service)
    service.warm_up()
    service.close()
    return service, calls


def test_the_first_start_measures_and_the_next_only_draws(folder: Path) -> None:
    archive = unpack(folder / "archive", tiny_stable_diffusion())
    first, calls = start(archive)
    measured = calls.rows[:-1]
    sizes = sorted(set(measured))
    assert calls.rows[-1] == 2
    assert sizes[:4] == [1, 2, 3, 4]
    assert all(measured.count(rows) == profiling.REPEATS + 1 for rows in sizes)
    profile = first.engine.policy.profile
    assert profile is not None
    assert list(profile.shapes["32x32"].seconds) == sizes
    (kept,) = (folder / "profiles").glob("*.json")
    assert BatchProfile.read(kept) == profile
    again, calls = start(archive)
    assert calls.rows == [2]
    assert again.engine.policy.profile == profile
    assert again.describe()["engine"]["profile"]["32x32"]["cap"] in sizes


@pytest.mark.parametrize(
    ("engine", "sizes", "cap"),
    [({"fixed_batch": 4}, {4}, 4), ({"max_rows": 3}, {1, 2, 3}, 3)],
)
def test_a_set_cap_holds(folder: Path, engine: dict[str, int], sizes: set[int], cap: int) -> None:
    service, calls = start(unpack(folder / "archive", tiny_stable_diffusion(), engine=engine))
    assert set(calls.rows[:-1]) <= sizes
    assert service.engine.policy.pace(Shape(32, 32)).cap == cap


def test_a_profile_of_other_conditions_is_measured_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = unpack(folder / "archive", tiny_stable_diffusion())
    start(archive)
    (kept,) = (folder / "profiles").glob("*.json")
    document = json.loads(kept.read_text())
    document["conditions"]["threads"] = 99
    kept.write_text(json.dumps(document))
    _, calls = start(archive)
    assert len(calls.rows) > 1
    assert "threads 99, not 1" in caplog.text
    kept.write_text("{")
    _, calls = start(archive)
    assert len(calls.rows) > 1


def test_a_folder_that_cannot_be_written_costs_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "file" / "profiles"))
    service, _ = start(unpack(folder / "archive", tiny_stable_diffusion()))
    assert service.engine.policy.profile is not None
    assert [one.levelno for one in caplog.records].count(logging.WARNING) == 1
    assert "not kept" in caplog.text


def test_a_pipeline_without_a_rule_runs_one_request_at_a_time(client: Client) -> None:
    service = client.handler.service
    assert service is not None
    rules = dict(service.served.rules)
    service.served.rules["unet"] = None
    try:
        request = service.schema.parse_json({"prompt": "x", "seed": 0})
        curve = profiling.measure(service.served, profiling.Task(service._job(request, 9.0), 16))
    finally:
        service.served.rules.update(rules)
    assert list(curve.seconds) == [2]
    assert curve.cap == 2


def test_memory_ends_the_sizes(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    service = client.handler.service
    assert service is not None
    unet = service.served.pipelines["text-to-image"].unet
    forward = unet.forward

    def small(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if sample.shape[0] > 3:
            raise torch.OutOfMemoryError("out of memory")
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(unet, "forward", small)
    request = service.schema.parse_json({"prompt": "x", "seed": 0})
    curve = profiling.measure(service.served, profiling.Task(service._job(request, 9.0), 16))
    assert curve.stopped == "memory"
    assert max(curve.seconds) <= 3


def test_without_time_the_first_size_is_measured(client: Client) -> None:
    service = client.handler.service
    assert service is not None
    request = service.schema.parse_json({"prompt": "x", "seed": 0})
    task = profiling.Task(service._job(request, 9.0), 16, budget_s=0.0)
    curve = profiling.measure(service.served, task)
    assert curve.stopped == "time"
    assert len(curve.seconds) == 1


def test_a_time_limit_that_cannot_be_met_is_refused_with_a_time_to_retry(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = client.handler.service
    assert service is not None
    slow = StepCurve(seconds={1: 10.0, 2: 10.0}, limit=2, stopped="limit")
    profile = BatchProfile(conditions={}, measured="2026-01-31", shapes={"32x32": slow})
    monkeypatch.setattr(service.engine.policy, "_profile", profile)
    monkeypatch.setattr(service.engine.policy, "_paces", {})
    request = service.schema.parse_json({"prompt": "x", "seed": 0, "num_inference_steps": 3})
    with pytest.raises(OverloadedError) as raised:
        service.engine.submit(service._job(request, 5.0))
    assert raised.value.field == "timeout_s"
    assert raised.value.retry_after is not None
    assert raised.value.retry_after > 5
    assert service.engine.in_flight == 0


CONDITIONS = {"threads": 1}

WRITER = """
import sys
from pathlib import Path
from diffusion_core.profile import BatchProfile, StepCurve
from diffusion_engine.profile_store import ProfileStore
curve = StepCurve(seconds={1: float(sys.argv[2])}, limit=1, stopped="limit")
shapes = {f"{n}x8": curve for n in range(200)}
profile = BatchProfile(conditions={"threads": 1}, measured="2026-01-31", shapes=shapes)
for _ in range(20):
    ProfileStore(Path(sys.argv[1])).save(profile)
"""


def test_writers_at_once_leave_one_whole_profile(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [subprocess.Popen([*command, number], env=environment) for number in "12"]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = ProfileStore(tmp_path).load(CONDITIONS)
    assert found is not None
    assert len(found.shapes) == 200
    assert len({curve.at(1) for curve in found.shapes.values()}) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_one_process_measures_at_a_time(tmp_path: Path) -> None:
    first, second = ProfileStore(tmp_path), ProfileStore(tmp_path)
    with first.alone(0.0) as mine:
        assert mine
        with second.alone(0.0) as theirs:
            assert not theirs
    with second.alone(0.0) as theirs:
        assert theirs


def test_the_cap_is_a_metric(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = open_client(unpack(tmp_path / "archive", tiny_stable_diffusion()))
    assert client.handler.service is not None
    client.handler.service.close()
    told = caplog.text
    assert "diffusion_batch_cap_rows" in told
    assert "diffusion_full_call_seconds" in told
    assert "shape:32x32" in told
