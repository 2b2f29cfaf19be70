"""docs/pipelines.md tells of every pipeline that diffusers has, and of it what is so."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

from surveying.trial import try_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text(encoding="utf-8")
NAMES = [one.__name__ for one in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()]
SAMPLE = ("OvisImagePipeline", "StableDiffusion3PAGPipeline", "StableDiffusionControlNetPipeline")


def row_of(name: str) -> list[str]:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize(
    "name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.full) for n in NAMES]
)
def test_its_row_says_what_comes_of_it(name: str) -> None:
    trial = try_pipeline(name)
    _, _, draws, shares, _ = row_of(name)
    assert draws.startswith("yes") is (trial.apart is not None)
    assert draws.startswith("not built") is not trial.built
    assert shares == ("" if trial.apart is None else "yes" if trial.shared else "no")
    assert trial.apart is None or trial.apart <= 1 / 255


def test_every_pipeline_has_a_row() -> None:
    assert all(row_of(name) for name in NAMES)
