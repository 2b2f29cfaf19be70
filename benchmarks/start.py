"""From a worker's start to its first picture, over imports beside weights and a first call.

The first picture is the one that a worker draws before it reports READY; its profile is there from
an earlier start. Weights are read from the disk: before each reading the kernel is told to forget
them. Each part runs in a process of its own: `python -m benchmarks.start PART ORDER`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import summary
from benchmarks.models import ROOT, WORK, Model, find
from benchmarks.workload import asked

_STEPS = 2
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Order:
    """What a part's process is told."""

    model: str
    folder: str
    threads: int


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds of the parts and of the whole, by model, and the ratio of whole to bound."""
    return {
        name: _measure(bench, bench.model(name), bench.scaled(3 if name == "mid" else 2))
        for name in bench.chosen("mid", "sd15")
    }


def _measure(bench: Bench, model: Model, rounds: int) -> dict[str, Any]:
    from benchmarks.torchserve import build

    store = WORK / "store"
    store.mkdir(parents=True, exist_ok=True)
    folder = store / build(store, model, mode="classic", rows=2, batch=1, threads=bench.threads)
    order = Order("emoji" if model.name == "tiny" else model.name, str(folder), bench.threads)
    bench.say(f"{model.name}: a first start, which leaves a profile")
    _run("whole", order)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(rounds):
        for part, of in seconds.items():
            bench.say(f"{model.name}: {part}, round {number + 1}")
            _forget(model)
            of.append(_run(part, order))
    parts = zip(seconds["imports"], seconds["weights"], seconds["first_call"], strict=True)
    bounds = [max(imports, weights) + first for imports, weights, first in parts]
    ratio = [whole / bound for whole, bound in zip(seconds["whole"], bounds, strict=True)]
    return {
        "model": model.name,
        "weight_bytes": sum(file.stat().st_size for file in model.weights),
        "seconds": {part: summary(of) for part, of in seconds.items()},
        "ratio": summary(ratio),
    }


def _forget(model: Model) -> None:
    """Asks the kernel to drop the weights from its cache."""
    for file in model.weights:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _run(part: str, order: Order) -> float:
    """Seconds of a part: of its whole process, or of what it says itself."""
    command = [sys.executable, "-m", "benchmarks.start", part, json.dumps(asdict(order))]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout.splitlines()[-1]) if part in ("weights", "first_call") else seconds


def whole(order: Order) -> None:
    """What a worker does from its start until it is READY, its first picture drawn."""
    from diffusion_core.model_config import read_model_config
    from diffusion_engine.service import DiffusionService

    folder = Path(order.folder)
    DiffusionService(folder, read_model_config(folder / "model-config.yaml")).warm_up()


def imports(order: Order) -> None:
    """The modules that the whole needs: the engine's, and those of the pipeline's classes."""
    import diffusers
    import transformers

    import diffusion_engine.service  # noqa: F401

    index = json.loads((Path(order.folder) / "pipeline" / "model_index.json").read_text())
    getattr(diffusers, index["_class_name"])
    for library, name in (part for part in index.values() if isinstance(part, list)):
        if library is not None:
            getattr({"diffusers": diffusers, "transformers": transformers}[library], name)


def weights(order: Order) -> None:
    """Reads the weights as fast as the disk gives them."""
    begun = time.perf_counter()
    block = bytearray(_BLOCK)
    for path in find(order.model).weights:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
    print(time.perf_counter() - begun)


def first_call(order: Order) -> None:
    """A first picture of the bare pipeline, once it is loaded."""
    from benchmarks.peers.drawing import Drawer

    model = find(order.model)
    drawer = Drawer(model.folder, model.dtype, order.threads)
    begun = time.perf_counter()
    drawer.draw([asked(model, [_STEPS])[0].fields()])
    print(time.perf_counter() - begun)


PARTS = {"whole": whole, "imports": imports, "weights": weights, "first_call": first_call}


def main() -> None:
    """Runs one part and ends at once: what an interpreter does at its end is no start."""
    part, text = sys.argv[1:]
    PARTS[part](Order(**json.loads(text)))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
