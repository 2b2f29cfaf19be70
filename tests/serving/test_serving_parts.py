from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from serving.draining import busy_workers
from serving.java import java_version
from serving.registration import Registration
from serving.variant import make_variant, next_version, remove_variant, remove_variants

ROOT = Path(__file__).parents[2]


def test_a_worker_is_busy_between_two_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "ts_log.log"
    thread = "2026-01-01T00:00:00,000 [INFO ] W-{}-tiny_1.0 org.pytorch.serve.wlm.WorkerThread - {}"
    taken, answered = "Looping backend response at: 1795310584336", "Backend response time: 2004"
    lines = [(9000, taken), (9001, taken), (9000, answered), (9001, answered), (9000, taken)]
    log.write_text("\n".join(thread.format(*line) for line in lines))
    assert busy_workers(log) == {"9000"}


@pytest.mark.parametrize(
    ("version", "taken", "expected"),
    [
        ("1.0", [], "1.0"),
        ("1.0", ["1.0"], "1.0-r2"),
        ("1.0-r2", ["1.0-r2"], "1.0-r3"),
        ("1.0", ["1.0", "1.0-r2"], "1.0-r3"),
    ],
)
def test_a_version_that_is_taken_gets_a_revision(
    version: str, taken: list[str], expected: str
) -> None:
    assert next_version(version, taken) == expected


def test_a_variant_shares_files_and_has_a_version_of_its_own(tmp_path: Path) -> None:
    source = tmp_path / "store" / "tiny"
    (source / "MAR-INF").mkdir(parents=True)
    (source / "weights.bin").write_bytes(b"weights")
    manifest = {"model": {"modelName": "tiny", "modelVersion": "1.0"}}
    (source / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))

    archive = make_variant(source.parent, source, "tiny", "1.0-r2")

    made = source.parent / archive
    assert os.path.samefile(made / "weights.bin", source / "weights.bin")
    assert json.loads((made / "MAR-INF" / "MANIFEST.json").read_text())["model"] == {
        "modelName": "tiny",
        "modelVersion": "1.0-r2",
    }
    assert json.loads((source / "MAR-INF" / "MANIFEST.json").read_text()) == manifest
    remove_variant(source.parent, "tiny")
    remove_variants(source.parent)
    assert [path.name for path in source.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("words", "version"),
    [('openjdk version "17.0.15" 2025-04-15', 17), ('java version "1.8.0_392"', 8), ("no", 0)],
)
def test_java_tells_its_version(words: str, version: int, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{words}' >&2\n")
    java.chmod(0o755)
    assert java_version(java) == version
    assert java_version(tmp_path / "missing") == 0


def test_a_version_is_ready_when_all_its_workers_are() -> None:
    document = {
        "modelName": "tiny",
        "modelVersion": "1.0",
        "modelUrl": "tiny.mar",
        "batchSize": 4,
        "maxBatchDelay": 50,
        "minWorkers": 2,
        "continuousBatching": False,
        "workers": [{"id": "9000", "status": "READY", "pid": 1}],
        "jobQueueStatus": {"remainingCapacity": 97, "pendingRequests": 3},
    }
    found = Registration.of(document, default="1.0")
    assert (found.capacity, found.pending, found.default, found.is_ready) == (100, 3, True, False)
    assert Registration.of({**document, "minWorkers": 1}, default="0.9").is_ready


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", makefile)
    assert phony
    targets = set(phony.group(1).replace("\\\n", " ").split()) - {"python"}
    # Called from another make, this one would tell which folder it enters.
    command = ["make", "--no-print-directory", "help"]
    help_ = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert targets == {
        line.split()[0] for line in help_.stdout.splitlines() if "Variables" not in line
    }
    documented = (ROOT / "docs/operations.md").read_text()
    assert {target for target in targets if f"make {target}" not in documented} == set()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scale"], "WORKERS is missing; for example: make scale WORKERS=2"),
        (["batch"], "SIZE is missing; for example: make batch SIZE=8 DELAY=50"),
        (["status", "WORKRES=2"], "Unknown variable WORKRES"),
        (["serve", "NAME=mien"], "model_store holds no archive of mien"),
    ],
)
def test_make_says_what_is_missing_or_unknown(arguments: list[str], sentence: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    done = subprocess.run(
        ["make", "--old-file=install", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode != 0
    assert sentence in done.stderr
