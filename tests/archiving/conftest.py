"""A tiny pipeline that is made once and copied, and the archive tool as its users call it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer.testing

from archive_tool import Outcome, Run

CONFIG = """
handler:
  device: cpu
  threads: 1
  limits: {min_size: 16, max_size: 64}
  warmup: {steps: 1}
"""


@pytest.fixture(scope="session")
def made_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import save_tiny_stable_diffusion

    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("made") / "pipeline")


@pytest.fixture
def pipeline(made_pipeline: Path, tmp_path: Path) -> Path:
    """A pipeline folder of the test's own, to break as it likes."""
    return Path(shutil.copytree(made_pipeline, tmp_path / "pipeline"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hashes are remembered for the test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def run() -> Run:
    import archive

    def run(*arguments: object) -> Outcome:
        result = typer.testing.CliRunner().invoke(archive.app, [str(word) for word in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def build(run: Run, pipeline: Path, config: Path, store: Path, tmp_path: Path) -> Run:
    """`archive.py build` of the tiny pipeline; further arguments win."""

    def build(*arguments: object, model: object = pipeline, name: str = "tiny") -> Outcome:
        settings = ("--config", config, "--model-store", store)
        server = ("--server-config", tmp_path / "config.properties")
        return run("build", "--model", model, "--name", name, *settings, *server, *arguments)

    return build
