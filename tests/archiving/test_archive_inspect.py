"""An inspection names what is not as recorded, in every format."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from archive_tool import Run


def test_a_changed_file_is_named(build: Run, run: Run, store: Path) -> None:
    build("--format", "no-archive")
    config = store / "tiny" / "pipeline" / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    seen = run("inspect", store / "tiny")
    assert (seen.code, "fault: pipeline/unet/config.json" in seen.out) == (1, True)


def test_missing_and_unknown_files_are_named(build: Run, run: Run, store: Path) -> None:
    build("--format", "no-archive")
    (store / "tiny" / "model-config.yaml").rename(store / "tiny" / "other.yaml")
    seen = run("inspect", store / "tiny")
    assert seen.code == 1
    assert "model-config.yaml: is missing" in seen.out
    assert "other.yaml: is not in archive.json" in seen.out


def test_caches_of_a_worker_are_no_fault(build: Run, run: Run, store: Path) -> None:
    build("--format", "no-archive")
    cache = store / "tiny" / "diffusion_core" / "__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc").write_bytes(b"x")
    assert run("inspect", store / "tiny").code == 0


def test_a_zip_that_was_rewritten(build: Run, run: Run, store: Path) -> None:
    build()
    with zipfile.ZipFile(store / "tiny.mar", "a") as archive:
        archive.writestr("extra.py", "import os")
    seen = run("inspect", store / "tiny.mar")
    assert (seen.code, "extra.py: is not in archive.json" in seen.out) == (1, True)


def test_a_flipped_bit(build: Run, run: Run, store: Path) -> None:
    build()
    path = store / "tiny.mar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    seen = run("inspect", path)
    assert seen.code == 1
    assert "fault: pipeline/unet/diffusion_pytorch_model.safetensors" in seen.out


def test_a_truncated_archive(build: Run, run: Run, store: Path) -> None:
    for form, name in (("zip-store", "tiny.mar"), ("tgz", "tiny.tar.gz")):
        build("--format", form)
        path = store / name
        path.write_bytes(path.read_bytes()[:-5000])
        seen = run("inspect", path)
        assert (seen.code, len(seen.err.strip().splitlines())) == (1, 1)


def test_a_record_that_lies_about_its_identity(build: Run, run: Run, store: Path) -> None:
    build("--format", "no-archive")
    record = store / "tiny" / "archive.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "identity": "0" * 64}))
    seen = run("inspect", store / "tiny")
    assert (seen.code, "its identity is not" in seen.out) == (1, True)


def test_what_is_no_archive(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.mar").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{}")
    for name, word in (("text.mar", "neither"), ("other.mar", "no archive.json"), ("no", "there")):
        seen = run("inspect", tmp_path / name)
        assert (seen.code, word in seen.err) == (2, True), seen


def test_a_source_written_into_is_seen(build: Run, run: Run, store: Path, pipeline: Path) -> None:
    """What docs/archives.md says of hard links: writing into the source changes the archive."""
    build("--format", "no-archive")
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    seen = run("inspect", store / "tiny")
    assert (seen.code, f"unet/{weights.name}" in seen.out) == (1, True)
    shutil.rmtree(store / "tiny")
