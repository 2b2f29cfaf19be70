"""Peak resident memory of an engine with many requests in flight, over the bare pipeline's.

Each is measured in a process of its own: `python -m benchmarks.memory MODEL SYSTEM …`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.engine import InProcess
from benchmarks.figures import ratios, summary
from benchmarks.models import ROOT, find
from benchmarks.peers.drawing import Drawer
from benchmarks.workload import asked
from diffusion_core.policy import SchedulingPolicy

_IN_FLIGHT = 32
_STEPS = 2
_KIBIBYTE = 1024


def measure(bench: Bench) -> dict[str, Any]:
    """Bytes of both, and the ratio without the latents that only the engine has to hold."""
    found = {}
    for name in bench.chosen("mid", "sd15"):
        model = bench.model(name)
        allowed = bench.calibration(model)
        peaks: dict[str, list[int]] = {"bare": [], "engine": []}
        for number in range(bench.scaled(3 if name == "mid" else 1)):
            for system, of in peaks.items():
                bench.say(f"{model.name}: memory of the {system}, round {number + 1}")
                of.append(_peak(name, system, allowed.batch, allowed.rows, bench.threads))
        side = model.size // 8
        latents = _IN_FLIGHT * 4 * side * side * (2 if model.dtype == "bfloat16" else 4)
        found[name] = {
            "model": model.name,
            "in_flight": _IN_FLIGHT,
            "rows": allowed.rows,
            "bare_bytes": peaks["bare"],
            "engine_bytes": peaks["engine"],
            "latent_bytes": latents,
            "ratio": summary(ratios([peak - latents for peak in peaks["engine"]], peaks["bare"])),
        }
    return found


def _peak(name: str, system: str, batch: int, rows: int, threads: int) -> int:
    arguments = [name, system, str(batch), str(rows), str(threads)]
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    return int(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Draws as a process that does nothing else, and prints its peak in bytes."""
    name, system, *numbers = sys.argv[1:]
    batch, rows, threads = map(int, numbers)
    model = find(name)
    if system == "bare":
        drawer = Drawer(model.folder, model.dtype, threads)
        for _ in range(-(-_IN_FLIGHT // batch)):
            drawer.draw([one.fields() for one in asked(model, [_STEPS] * batch)])
    else:
        with InProcess(model, SchedulingPolicy(rows), threads) as engine:
            engine.run(asked(model, [_STEPS] * _IN_FLIGHT))
    print(_own_peak())


def _own_peak() -> int:
    """Bytes; getrusage's figure starts at what the parent held when it started this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * _KIBIBYTE


if __name__ == "__main__":
    main()
