from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from diffusion_core.identity import (
    ArchiveRecord,
    FileRecord,
    archive_identity,
    digest,
    runtime_identity,
)

FILES = {
    "pipeline/unet/weights.safetensors": FileRecord(size=3, sha256="aa"),
    "diffusion_handler.py": FileRecord(size=2, sha256="bb"),
}
RECIPE = {"dtype": "float32", "fixed_batch": None}


def test_what_draws_names_the_pictures() -> None:
    ours = archive_identity(FILES, RECIPE)
    changed = {**FILES, "pipeline/unet/weights.safetensors": FileRecord(size=3, sha256="cc")}
    moved = {"pipeline/weights.safetensors": FileRecord(size=3, sha256="aa")}
    others = [
        archive_identity(changed, RECIPE),
        archive_identity(moved, RECIPE),
        archive_identity(FILES, {**RECIPE, "dtype": "bfloat16"}),
        archive_identity(FILES, {**RECIPE, "fixed_batch": 4}),
    ]
    assert len({ours, *others}) == 5


def test_a_fixed_handler_draws_the_same() -> None:
    fixed = {**FILES, "diffusion_handler.py": FileRecord(size=9, sha256="dd")}
    assert archive_identity(fixed, RECIPE) == archive_identity(FILES, RECIPE)


def test_the_order_of_names_does_not_matter() -> None:
    assert digest({"a": 1, "b": [2, "ü"]}) == digest({"b": [2, "ü"], "a": 1})


def test_device_dtype_and_libraries_name_a_runtime() -> None:
    base = ("id", "cpu", "float32", {"torch": "2.13.0"})
    names = {
        runtime_identity(*base),
        runtime_identity("other", *base[1:]),
        runtime_identity("id", "cuda", *base[2:]),
        runtime_identity("id", "cpu", "float16", base[3]),
        runtime_identity("id", "cpu", "float32", {"torch": "2.14.0"}),
    }
    assert len(names) == 5


@pytest.mark.parametrize("text", [None, "", "{}", '{"format": "x"}'])
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "archive.json").write_text(text)
    with pytest.raises(ConfigError, match=r"archive\.json"):
        ArchiveRecord.read(tmp_path)
