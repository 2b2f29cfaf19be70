"""Killed runs, a full disk, two runs at once: archives are whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_tool import Run

SCRIPT = Path(__file__).parents[2] / "scripts" / "archive.py"

# Holds the archiver up in the middle of its work, with some of the archive written.
SLOW = """
import sys, time
sys.path.insert(0, {scripts!r})
import archiving.{module} as module
whole = module.{function}
def slow(*arguments):
    print("begun", flush=True)
    time.sleep({seconds})
    return whole(*arguments)
module.{function} = slow
import archive
archive.app()
"""


def start_slow(
    pipeline: Path, config: Path, store: Path, point: str, seconds: float, *more: str
) -> subprocess.Popen[str]:
    module, _, function = point.partition(":")
    text = SLOW.format(
        scripts=str(SCRIPT.parent), module=module, function=function, seconds=seconds
    )
    words = ["build", "--model", pipeline, "--name", "tiny", "--config", config]
    words += ["--model-store", store, *more]
    process = subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    ("form", "point"),
    [
        ("zip-store", "zip_store:_copy_window"),
        ("zip-store", "build:publish"),
        ("no-archive", "linked:_link"),
        ("tgz", "archiver:_pack"),
    ],
)
def test_killed_midway(
    build: Run, pipeline: Path, config: Path, store: Path, form: str, point: str
) -> None:
    process = start_slow(pipeline, config, store, point, 60, "--format", form)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path for path in store.iterdir() if not path.name.startswith(".")] == []
    assert len(list(store.iterdir())) == 1
    assert build("--format", form).code == 0
    assert [path for path in store.iterdir() if path.name.startswith(".")] == []


def test_killed_while_replacing_leaves_the_old(
    build: Run, run: Run, pipeline: Path, config: Path, store: Path
) -> None:
    build()
    before = (store / "tiny.mar").read_bytes()
    process = start_slow(pipeline, config, store, "build:publish", 60, "--force")
    process.kill()
    process.communicate()
    assert (store / "tiny.mar").read_bytes() == before


def test_two_runs_at_once(build: Run, run: Run, pipeline: Path, config: Path, store: Path) -> None:
    other = start_slow(pipeline, config, store, "build:publish", 2)
    assert build().code == 0
    _, err = other.communicate()
    assert (other.returncode, "exists" in err) == (2, True)
    assert [path.name for path in store.iterdir()] == ["tiny.mar"]
    assert run("inspect", store / "tiny.mar").code == 0


def test_a_run_in_progress_is_no_leftover(
    build: Run, pipeline: Path, config: Path, store: Path
) -> None:
    other = start_slow(pipeline, config, store, "build:publish", 2, "--name", "other")
    assert build().code == 0
    other.communicate()
    assert other.returncode == 0
    assert sorted(path.name for path in store.iterdir()) == ["other.mar", "tiny.mar"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A store on a disk of one megabyte, half of what the archive needs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("form", ["zip-store", "tgz", "default"])
def test_too_little_space_is_told_first(build: Run, small_disk: Path, form: str) -> None:
    outcome = build("--model-store", small_disk, "--format", form)
    assert (outcome.code, "GB free" in outcome.err) == (2, True)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("form", ["zip-store", "tgz", "default"])
def test_disk_that_fills_up(
    build: Run, small_disk: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import archiving.build

    monkeypatch.setattr(archiving.build, "require_space", lambda store, needed: None)
    outcome = build("--model-store", small_disk, "--format", form)
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert "full" in outcome.err or "space" in outcome.err
    assert list(small_disk.iterdir()) == []


def test_another_disk_gets_symbolic_links(build: Run, run: Run, small_disk: Path) -> None:
    assert build("--model-store", small_disk, "--format", "no-archive").code == 0
    weights = small_disk / "tiny" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.is_symlink()
    assert run("inspect", small_disk / "tiny").code == 0


def test_source_that_changes_meanwhile(
    build: Run, store: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import archiving.zip_store

    whole = archiving.zip_store._copy_window

    def meddle(source, offset, view, output):  # type: ignore[no-untyped-def]
        os.utime(source.name, (time.time(), time.time()))
        whole(source, offset, view, output)

    monkeypatch.setattr(archiving.zip_store, "_copy_window", meddle)
    outcome = build()
    assert (outcome.code, "changed while it was read" in outcome.err) == (2, True)
    assert list(store.iterdir()) == []


def test_kernel_that_cannot_copy(build: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build().sha256

    def refuse(*arguments: object) -> int:
        raise OSError(18, "cross-device")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    assert build("--force").sha256 == expected
    assert zipfile.ZipFile(store / "tiny.mar").testzip() is None


def test_little_memory(pipeline: Path, config: Path, store: Path) -> None:
    """torch and diffusers stay out of the process that writes."""
    text = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); sys.argv[0] = 'archive.py'\n"
        "import archive, atexit\n"
        "atexit.register(lambda: print([m for m in ('torch', 'diffusers') if m in sys.modules]))\n"
        "archive.app()\n"
    )
    words = ["build", "--model", pipeline, "--name", "tiny", "--config", config]
    words += ["--model-store", store]
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, words)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")
