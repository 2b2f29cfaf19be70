"""Variants run for real, each in a process of its own, and the archive of the chosen one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffusion_core.identity import ArchiveRecord
from optimizing.measuring import Bench, Original, conditions, measure
from optimizing.plan import Plan
from optimizing.variants import ORIGINAL, Variant
from served import ROOT, TINY_CONFIG
from tiny import save_tiny_stable_diffusion

SAME = Variant(ORIGINAL)
FEWER = Variant("fewer", {"defaults": {"num_inference_steps": 1}})
NEEDS_CUDA = Variant("cuda", {"attention": "xformers"})
NO_CONFIG = Variant("typo", {"dtpye": "float32"})
# Says nothing and ends, as a worker does that runs out of memory.
CRASHES = Variant("crashes", {"threads": 1 << 30})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(
        model=save_tiny_stable_diffusion(tmp_path / "pipeline"),
        name="tiny",
        document=TINY_CONFIG,
        work=tmp_path / "work",
        server_config=ROOT / "config" / "config.properties",
        plan=Plan(("a cat", "a dog", "the sea"), names=False, batch=2, rounds=2),
        limit_s=240,
    )


def test_a_variant_runs_beside_the_original(bench: Bench) -> None:
    told: list[str] = []
    original = Original(bench, SAME, told.append)
    try:
        row = measure(bench, FEWER, original, told.append)
        misspelt = measure(bench, NO_CONFIG, original, told.append)
    finally:
        original.close()
    assert row.error is None
    assert (len(row.rate), len(row.speedup), len(row.step_seconds)) == (2, 2, 2)
    assert row.disk_bytes > row.packed_bytes > 0
    assert row.peak_bytes > 0
    assert row.moved is not None
    assert row.moved.ssim < 1
    assert row.company <= 1
    assert told[-1] != "round 2 of 2" or "round 1 of 2" in told
    # A variant that cannot even be asked for is a row too, and the original still answers.
    assert misspelt.error is not None
    assert "dtpye" in misspelt.error
    assert misspelt.verdict == "failed"
    assert conditions(bench)["identity"] == ArchiveRecord.read(original.folder).identity


@pytest.mark.full
def test_what_fails_is_a_row_and_not_the_end(bench: Bench) -> None:
    original = Original(bench, SAME, lambda _: None)
    try:
        rows = [
            measure(bench, one, original, lambda _: None) for one in (NEEDS_CUDA, CRASHES, SAME)
        ]
    finally:
        original.close()
    assert "needs CUDA" in (rows[0].error or "")
    assert rows[1].error
    assert rows[2].moved is not None
    assert rows[2].moved.psnr is None


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--quality", "ssim:0.2", "--archive"], 0, "is built"),
        (["--quality", "ssim:0.2", "--speedup", "1000"], 1, "The fastest of all is"),
        (["--quality", "ssim:7"], 1, "between 0 and 1"),
        (["--variants", "steps-0"], 1, "is none of"),
        (["--price", "nowhere"], 1, "is no machine"),
        (["--price", "0"], 1, "above 0"),
        (["--quality", "top1:0.5"], 1, "emoji only"),
    ],
)
def test_the_command(
    bench: Bench, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY_CONFIG))
    command = [sys.executable, "scripts/optimize.py", "--model", str(bench.model)]
    command += ["--name", "tiny", "--config", str(config), "--out", str(tmp_path / "out")]
    command += ["--images", "2", "--rounds", "1", "--model-store", str(tmp_path / "store")]
    # The last one named wins.
    command += ["--variants", "bfloat16", "--price", "cpu-2", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert words in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == code
    if "--archive" in arguments:
        built = list((tmp_path / "store").glob("tiny-*.mar"))
        assert len(built) == 1
        assert "| original |" in (tmp_path / "out" / "optimize.md").read_text().replace("**", "")
        assert (tmp_path / "out" / "optimize.png").stat().st_size > 10_000
