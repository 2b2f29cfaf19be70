from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from triton_clients import write_repository

from loras import save_lora
from served import ROOT, TINY_CONFIG
from serving.ports import free_base
from tiny import save_tiny_stable_diffusion, tiny_stable_diffusion
from triton_serving.environment import Environment
from triton_serving.server import RunningTriton, TritonServer

ENVIRONMENT = Path(os.environ.get("TRITON_ENVIRONMENT", ROOT / "run" / "triton-venv"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    # So small a pipeline gains nothing by sharing calls: the cap that would be measured is one.
    handler = {**TINY_CONFIG["handler"], "engine": {"max_rows": 16}}
    save_lora(tiny_stable_diffusion(), "attention", folder / "attention.safetensors")
    handler["adapters"] = {"files": {"attention": "attention.safetensors"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY_CONFIG, "handler": handler}))
    pipeline = save_tiny_stable_diffusion(folder / "pipeline")
    write_repository(folder, pipeline, "1")
    # Self-contained: the server has to do without what it was made of.
    pipeline.rename(folder / "pipeline-elsewhere")
    return folder / "repository"


@pytest.fixture(scope="module")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One that has not been started."""
    Environment(ENVIRONMENT).install()
    server = TritonServer(tmp_path_factory.mktemp("run"), grace_s=20)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def triton(triton_server: TritonServer, repository: Path) -> RunningTriton:
    return triton_server.start(Environment(ENVIRONMENT), repository, free_base(28700))
