"""Measures archives: time and memory of each format against copying and hashing the same files.

`python benchmarks/archive_bench.py --work FOLDER` needs some 14 GB of disk there. It makes a
pipeline of Stable Diffusion 1.5's sizes with random weights, runs every contender in turn, round
after round, and writes all figures with their median and spread to benchmarks/results/archive.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results" / "archive.json"

# A config whose pictures fit any server's settings: sizes of messages are not what is measured.
# The first picture is small, so that the time until it comes is that of the archive.
CONFIG = """
maxBatchDelay: 1
startupTimeout: 1800
handler:
  device: cpu
  limits: {min_size: 64, max_size: 512, max_images: 1}
  defaults: {width: 64, height: 64, num_inference_steps: 2}
"""
FIRST_IMAGE = ("no-archive", "zip-store", "default")

# The work of `cp` followed by fsync of each file, as the archiver's writer does.
COPY = """
import os, subprocess, sys
subprocess.run(["cp", "-r", sys.argv[1], sys.argv[2]], check=True)
for folder, _, names in os.walk(sys.argv[2]):
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            os.fsync(file.fileno())
"""

Run = dict[str, float]


def main() -> None:
    """Runs the rounds and writes the results."""
    arguments = _arguments()
    work: Path = arguments.work
    pipeline = _pipeline(work, arguments.small)
    contenders = _contenders(pipeline, work)
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name, contender in contenders.items():
            cold = name.endswith(" cold")
            if cold and not _drop_page_cache():
                continue
            runs[name].append(contender())
            print(f"{number}: {name}: {runs[name][-1]}", flush=True)
        _write(pipeline, runs, {})
    first: dict[str, list[Run]] = {form: [] for form in FIRST_IMAGE}
    for number in range(arguments.first_images):
        for form, of in first.items():
            of.append(_first_image(pipeline, work, form))
            print(f"{number}: {form} up to its first image: {of[-1]}", flush=True)
            _write(pipeline, runs, first)
    shutil.rmtree(work / "store", ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder on a disk with room")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-images", type=int, default=1, help="rounds up to a first image")
    parser.add_argument("--small", type=Path, help="another pipeline folder, for a quick try")
    return parser.parse_args()


def _pipeline(work: Path, small: Path | None) -> Path:
    """Made in a process of its own, as its memory would count as that of every child after it."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "bench.yaml").write_text(CONFIG)
    if small is not None:
        return small
    folder = work / "sd15"
    make = (
        "import sys, pathlib, pipelines; pipelines.stable_diffusion_15(pathlib.Path(sys.argv[1]))"
    )
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", make, folder.resolve()], cwd=here, check=True)  # noqa: S603
    return folder


def _contenders(pipeline: Path, work: Path) -> dict[str, Callable[[], Run]]:
    def copy() -> Run:
        shutil.rmtree(work / "copy", ignore_errors=True)
        return _measure([sys.executable, "-c", COPY, str(pipeline), str(work / "copy")], work)

    def sha256sum() -> Run:
        files = [str(path) for path in sorted(pipeline.rglob("*")) if path.is_file()]
        return _measure(["sha256sum", *files], work)

    def openssl() -> Run:
        files = [str(path) for path in sorted(pipeline.rglob("*")) if path.is_file()]
        return _measure(["openssl", "dgst", "-sha256", *files], work)

    def archive(form: str, *, known: bool) -> Callable[[], Run]:
        def run() -> Run:
            if not known:
                (work / "cache" / "torchserve-diffusers" / "hashes.json").unlink(missing_ok=True)
            return _measure(_build(pipeline, work, form), work)

        return run

    return {
        "cp and fsync": copy,
        "zip-store": archive("zip-store", known=False),
        "zip-store, hashes known": archive("zip-store", known=True),
        "cp and fsync cold": copy,
        "zip-store cold": archive("zip-store", known=False),
        "sha256sum": sha256sum,
        "openssl dgst": openssl,
        "no-archive": archive("no-archive", known=False),
        "no-archive, hashes known": archive("no-archive", known=True),
    }


def _first_image(pipeline: Path, work: Path, form: str) -> Run:
    """Seconds to make an archive, and from a running TorchServe's register call to its picture."""
    (work / "cache" / "torchserve-diffusers" / "hashes.json").unlink(missing_ok=True)
    built = _measure(_build(pipeline, work, form), work)
    run = ["--run-folder", str(work / "run")]
    archive = next(path.name for path in (work / "store").glob("bench*"))
    _script("server.py", "serve", "--port", "19380", "--model-store", str(work / "store"), *run)
    try:
        began = time.perf_counter()
        _script("registry.py", "register", "--name", "bench", "--archive", archive, *run)
        ready = time.perf_counter() - began
        _script("image.py", "--name", "bench", "--prompt", "a", "--out", str(work / "a.png"), *run)
        drawn = time.perf_counter() - began
    finally:
        _script("server.py", "stop", *run)
    return {
        "seconds": round(built["seconds"] + drawn, 2),
        "make_seconds": built["seconds"],
        "make_peak_mb": built["peak_mb"],
        "ready_seconds": round(ready, 2),
        "first_image_seconds": round(drawn, 2),
    }


def _script(name: str, *words: str) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{name} {words[0]} failed: {done.stdout[-300:]}{done.stderr[-300:]}")


def _build(pipeline: Path, work: Path, form: str) -> list[str]:
    script = REPOSITORY / "scripts" / "archive.py"
    words = ["build", "--model", pipeline, "--name", "bench", "--format", form, "--force"]
    words += ["--config", work / "bench.yaml", "--model-store", work / "store"]
    return [sys.executable, str(script), *map(str, words)]


def _measure(command: list[str], work: Path) -> Run:
    """Wall and CPU seconds of a command, and the most memory it and its children had, in MB."""
    shutil.rmtree(work / "store", ignore_errors=True)
    shutil.rmtree(work / "copy", ignore_errors=True)
    os.sync()
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache")}
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[1]} failed: {error.decode()[-500:]}")
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_mb": round(_megabytes(usage), 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _megabytes(usage: resource.struct_rusage) -> float:
    """ru_maxrss is in kilobytes, but on macOS in bytes."""
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _drop_page_cache() -> bool:
    """Only root may; without it the cold contenders are left out."""
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def _write(pipeline: Path, runs: dict[str, list[Run]], first: dict[str, list[Run]]) -> None:
    summary = {name: _summary(rounds) for name, rounds in runs.items() if rounds}
    document: dict[str, Any] = {
        "pipeline_bytes": sum(p.stat().st_size for p in pipeline.rglob("*") if p.is_file()),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "ratios": _ratios(summary),
        "summary": summary,
        "up_to_first_image": first,
        "runs": runs,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({"ratios": document["ratios"], "summary": summary}, indent=1))


def _summary(rounds: list[Run]) -> dict[str, Any]:
    seconds = sorted(run["seconds"] for run in rounds)
    return {
        "median_seconds": statistics.median(seconds),
        "fastest_seconds": seconds[0],
        "slowest_seconds": seconds[-1],
        "median_cpu_seconds": statistics.median(run["cpu_seconds"] for run in rounds),
        "peak_mb": max(run["peak_mb"] for run in rounds),
        "rounds": len(rounds),
    }


def _ratios(summary: dict[str, dict[str, Any]]) -> dict[str, float]:
    pairs = [
        ("zip-store", "cp and fsync"),
        ("zip-store, hashes known", "cp and fsync"),
        ("zip-store cold", "cp and fsync cold"),
        ("no-archive", "sha256sum"),
        ("no-archive", "openssl dgst"),
    ]
    return {
        f"{one} / {other}": round(
            summary[one]["median_seconds"] / summary[other]["median_seconds"], 2
        )
        for one, other in pairs
        if one in summary and other in summary
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
