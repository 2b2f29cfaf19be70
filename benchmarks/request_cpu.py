"""CPU time of a request outside models, scheduler arithmetic and image files, in all processes.

TorchServe, its worker and the client are counted. Requests of few and of many steps are measured
in turn with an empty handler's; a line through both tells what a request costs and a step adds.
The same pipeline's own script, without a server, is clocked beside them. The empty handler is asked
without pauses, and at the pace of the others: a server that is asked twenty times a second instead
of five hundred finds its caches cold, and a request costs it about twice as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench
from benchmarks.client import ask_all
from benchmarks.clocked import Cpu, clocked, outside_cpu
from benchmarks.figures import summary
from benchmarks.models import Model
from benchmarks.peers import drawing
from benchmarks.peers.clocks import Clocks
from benchmarks.peers.drawing import Drawer
from benchmarks.torchserve import TorchServe, build_empty
from benchmarks.workload import asked

_FEW, _MANY = 2, 12
_SMALL_FILE = 8000


def measure(bench: Bench) -> dict[str, Any]:
    """Milliseconds of CPU: the floor, and of a request in each mode."""
    model = bench.model("emoji")
    with TorchServe() as server:
        urls = {"empty": server.register(build_empty(server.store, _SMALL_FILE))}
        for mode in ("classic", "continuous"):
            urls[mode] = server.register(clocked(server, model, mode))
        outside = {
            name: outside_cpu(server, url.rsplit("/", 1)[-1], clocks=name != "empty")
            for name, url in urls.items()
        }
        return {"model": model.name, **_rounds(bench, model, urls, outside)}


def _rounds(
    bench: Bench, model: Model, urls: dict[str, str], outside: dict[str, Cpu]
) -> dict[str, Any]:
    count, warm = bench.scaled(40, 5), bench.scaled(200, 5)
    bare = _bare(model)
    plan = [(name, steps) for name in urls for steps in (_FEW, _MANY)]
    found: dict[str, dict[int, list[float]]] = {name: {_FEW: [], _MANY: []} for name in urls}
    scripts: dict[int, list[float]] = {_FEW: [], _MANY: []}
    paced: list[float] = []
    pace = 0.0
    bench.say("warming up")
    for url in urls.values():
        ask_all(url, asked(model, [_FEW] * warm), 1)
    for number in range(bench.scaled(4)):
        for name, steps in plan:
            bench.say(f"round {number + 1}: {name}, {steps} steps")
            before = outside[name]()
            run = ask_all(urls[name], asked(model, [steps] * count), 1)
            found[name][steps].append(1000 * (outside[name]() - before) / len(run.latencies))
            if name == "classic" and steps == _FEW:
                pace = run.seconds / count
        before = outside["empty"]()
        ask_all(urls["empty"], asked(model, [_FEW] * count), 1, pause_s=pace)
        paced.append(1000 * (outside["empty"]() - before) / count)
        for steps, values in scripts.items():
            values.append(bare(steps, count))
    report: dict[str, Any] = {"requests": count}
    for name, by_steps in {**found, "script alone": scripts}.items():
        pairs = list(zip(by_steps[_FEW], by_steps[_MANY], strict=True))
        steps = [(many - few) / (_MANY - _FEW) for few, many in pairs]
        requests = [few - _FEW * step for (few, _), step in zip(pairs, steps, strict=True)]
        report[name] = {"step_ms": summary(steps), "request_ms": summary(requests)}
    every = [value for values in found["empty"].values() for value in values]
    report["floor_ms"] = summary(every)
    report["paced_floor_ms"] = summary(paced)
    return report


def _bare(model: Model) -> Callable[[int, int], float]:
    """Milliseconds of CPU that the pipeline's own script takes outside of the same three."""
    drawer = Drawer(model.folder, model.dtype, threads=1)
    clocks = Clocks()
    clocks.watch(drawer.pipeline)
    clocks.wrap(drawing, "_png", "files")
    drawer.draw([asked(model, [_FEW])[0].fields()])

    def script(steps: int, count: int) -> float:
        counted, begun = sum(clocks.seconds.values()), time.process_time()
        for one in asked(model, [steps] * count):
            drawer.draw([one.fields()])
        outside = time.process_time() - begun - (sum(clocks.seconds.values()) - counted)
        return 1000 * outside / count

    return script
