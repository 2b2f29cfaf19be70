"""A day in minutes on a real TorchServe beside its simulation: behind make plan-scaling CHECK=1.

Registrations of a small model take the role of replicas. The policy, the scaler and what they see
are those of the simulation; pictures, loading and waiting are real. Assumed times are shortened by
one factor, down to what a scaler can follow; drawing and loading take what they take, are measured
first and given to the simulation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from archiving.build import build
from archiving.unpacked import linked_order
from archiving.watcher import Watcher
from diffusion_costs.documents import write_json
from diffusion_costs.percentiles import percentile
from diffusion_costs.scaling.outcomes import Objective, Tariff
from diffusion_costs.scaling.planning import ON_DEMAND, Planner
from diffusion_costs.scaling.policies import Policy
from diffusion_costs.scaling.runs import Load, Run
from diffusion_costs.scaling.settings import Behaviour, ScalingSettings
from diffusion_costs.scaling.speed import Speed
from diffusion_costs.traffic import DAY_S, SHAPES, Traffic
from saving.check_plot import plot
from saving.live import LiveFleet, Place, Seen
from saving.tables import plain_table
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble
from serving.ports import free_base
from serving.server import Server

_ROUNDS = 4
_LOADED = "replica-1"

app = program("A scaling policy on a real TorchServe, beside its simulation.")


@app.command()
def main(
    policy: Annotated[str, typer.Option(help="By its name.")] = "arriving and pending steps",
    seconds: Annotated[float, typer.Option(min=10, help="What a day is shortened to.")] = 150,
    use: Annotated[float, typer.Option(min=0.05, help="Mean load over a replica's most.")] = 0.8,
    most: Annotated[int, typer.Option(min=1, help="Replicas; each draws on a core.")] = 2,
    steps: Annotated[int, typer.Option(min=1, max=100, help="Of a picture.")] = 20,
    latency: Annotated[float, typer.Option(min=0.1, help="Its objective, in pictures' times.")] = 4,
    traffic: Annotated[str, typer.Option(help="Made-up day.")] = "diurnal",
    model: Annotated[Path, typer.Option(help="Pipeline folder.")] = ROOT / "models/emoji",
    settings: Annotated[Path, typer.Option(help="Assumptions.")] = ROOT / "config/scaling.yaml",
    seed: Annotated[int, typer.Option(help="Draws the traffic.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = ROOT / "run/plans",
) -> None:
    """Shows predicted beside seen; writes scaling-check.json and a plot."""
    if traffic not in SHAPES:
        raise typer.BadParameter(f"{traffic!r} is no traffic; known are {', '.join(SHAPES)}")
    folder = ROOT / "run" / "scaling-check"
    server = Server(folder)
    server.stop()
    store = folder / "store"
    store.mkdir(parents=True, exist_ok=True)
    with step("building the archive"):
        archive = _build(model, folder, store, steps)
    try:
        with step("starting TorchServe"):
            server.start(ROOT / "config" / "config.properties", store, port=free_base())
        place = _place(server, archive)
        with step("measuring a picture and a load"):
            speed, cold_s = _measured(place, most, steps)
        short = _shortened(ScalingSettings.read(settings), seconds / DAY_S, most)
        load = _load(traffic, seconds, use * speed.steps_per_s / steps, steps, seed)
        bound = latency * steps * speed.step_s[0]
        free = Tariff("this machine", "USD", 0.0)
        planner = Planner(speed, free, short, Objective(bound), cold_s)
        chosen = planner.policy(policy, load)
        with step(f"playing {len(load.times)} requests in {seconds:g} s"):
            seen = LiveFleet(chosen, short, place, speed.step_s[0]).run(load, [_LOADED])
    finally:
        server.stop()
    console.print(
        f"{len(load.times)} requests of {steps} steps in {seconds:g} s; a picture takes"
        f" {steps * speed.step_s[0]:.2f} s, a replica comes in {sum(short.provision_s) / 2:.1f} s"
        f" and loads in {cold_s:.1f} s."
    )
    premises = {"policy": policy, "traffic": traffic, "seconds": seconds}
    _compare(planner, chosen, load, seen, steps, premises, out)


def _compare(
    planner: Planner,
    chosen: Policy,
    load: Load,
    seen: Seen,
    steps: int,
    premises: dict[str, Any],
    out: Path,
) -> None:
    """The simulation, and once more with the times of the run itself, beside what was seen."""
    foreseen = planner.run(chosen, ON_DEMAND, load)
    # What a machine that others share leaves of the times that were measured before.
    times = Speed((mean(seen.draws) / steps,), "seen", measured=True)
    cold_seen_s = mean(seen.loads or [planner.cold_start_s])
    again = replace(planner, speed=times, cold_start_s=cold_seen_s)
    as_seen = again.run(chosen, ON_DEMAND, load)
    bound = planner.objective.latency_s
    figures = {
        "foreseen": _figures(foreseen.latencies, foreseen.paid_s["on_demand"], foreseen, bound),
        "with times as seen": _figures(
            as_seen.latencies, as_seen.paid_s["on_demand"], as_seen, bound
        ),
        "seen": _figures(seen.latencies, seen.paid_s, seen, bound),
    }
    console.print(
        f"While it was played a picture took {steps * times.step_s[0]:.2f} s and loading"
        f" {cold_seen_s:.1f} s."
    )
    console.print(check_table(figures, chosen.name))
    record = {
        "kind": "scaling-check",
        "made": datetime.now(UTC).date().isoformat(),
        **premises,
        "requests": len(load.times),
        "step_s": planner.speed.step_s[0],
        "cold_start_s": planner.cold_start_s,
        "step_seen_s": times.step_s[0],
        "cold_start_seen_s": cold_seen_s,
        "bound_s": bound,
        "settings": planner.settings.model_dump(),
        **figures,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scaling-check.json", record)
    runs: dict[str, Run | Seen] = {
        "foreseen": foreseen,
        "with times as seen": as_seen,
        "seen": seen,
    }
    title = f"{chosen.name}: a day of {load.horizon_s:g} s"
    plot(runs, out / "scaling-check.png", title)
    console.print(f"{out}: scaling-check.json and .png are written.", style="green")


def _build(model: Path, folder: Path, store: Path, steps: int) -> str:
    config = folder / "replica.yaml"
    document = yaml.safe_load((ROOT / "config" / "models" / "emoji.yaml").read_text()) or {}
    document |= {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1}
    handler = document.setdefault("handler", {})
    handler |= {"device": "cpu", "threads": 1}
    handler.setdefault("defaults", {})["num_inference_steps"] = steps
    config.write_text(yaml.safe_dump(document))
    order = linked_order(str(model), "replica", config, store)
    return build(order, Watcher()).target.name


def _place(server: Server, archive: str) -> Place:
    def load(name: str) -> None:
        management = server.management()
        management.register(archive, name)
        management.wait_ready(name)

    def drop(name: str) -> None:
        management = server.management()
        for version in management.versions(name):
            management.unregister(name, version.version)

    def draw(name: str, steps: int) -> None:
        fields = {"prompt": "red heart", "num_inference_steps": steps, "seed": 7}
        server.management().predict(name, fields, "image/png").raise_for_status()

    return Place(load, drop, draw)


def _measured(place: Place, most: int, steps: int) -> tuple[Speed, float]:
    """Seconds of a step while all replicas draw, and of a load while another one draws."""
    place.load(_LOADED)
    place.draw(_LOADED, steps)
    loads = []
    names = [_LOADED]
    with ThreadPoolExecutor(most) as pool:
        for number in range(2, most + 1):
            names.append(f"measured-{number}")
            began = time.monotonic()
            loading = pool.submit(place.load, names[-1])
            while not loading.done():
                place.draw(_LOADED, steps)
            loading.result()
            loads.append(time.monotonic() - began)
        taken = [one for _ in range(_ROUNDS) for one in pool.map(_timed(place, steps), names)]
    for name in names[1:]:
        place.drop(name)
    return Speed((median(taken) / steps,), "measured here", measured=True), median(loads or [0.0])


def _timed(place: Place, steps: int) -> Any:
    def draw(name: str) -> float:
        began = time.monotonic()
        place.draw(name, steps)
        return time.monotonic() - began

    return draw


def _shortened(settings: ScalingSettings, factor: float, most: int) -> ScalingSettings:
    """All assumed times by a factor; a look at least each half second."""
    behaviour = settings.behaviour
    times = {
        name: getattr(behaviour, name) * factor
        for name in ("up_window_s", "up_period_s", "down_window_s", "down_period_s")
    }
    changed = {
        "poll_s": max(0.5, settings.poll_s * factor),
        "provision_s": [max(1.0, one * factor) for one in settings.provision_s],
        "use_window_s": max(5.0, settings.use_window_s * factor),
        "rate_window_s": max(10.0, settings.rate_window_s * factor),
        "most": most,
        "thresholds": {
            name: {**one.model_dump(), "cooldown_s": one.cooldown_s * factor}
            for name, one in settings.thresholds.items()
        },
        "behaviour": Behaviour.model_validate({**behaviour.model_dump(), **times}).model_dump(),
    }
    return ScalingSettings.model_validate({**settings.model_dump(), **changed})


def _load(traffic: str, seconds: float, rate: float, steps: int, seed: int) -> Load:
    """A whole day's shape with as many requests as fit into the short one."""
    try:
        day = Traffic(traffic, rate * seconds / DAY_S, seed=seed, steps=(steps,)).trace()
    except ValueError:
        raise Trouble(
            f"no request comes in {seconds:g} s at {rate:.3g} a second, which --use asks for: use"
            " or seconds must be larger"
        ) from None
    times = [one.seconds * seconds / DAY_S for one in day.requests]
    return Load(times, [float(steps)] * len(times), seconds)


def _figures(
    latencies: Sequence[float], paid_s: float, run: Run | Seen, bound_s: float
) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        "replica_s": paid_s,
        "idle": 1 - run.busy_s / paid_s,
        "starts": run.starts,
        "in_time": sum(one <= bound_s for one in ordered) / len(ordered),
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
    }


def check_table(figures: dict[str, dict[str, float]], policy: str) -> Table:
    """Figures by row, the runs beside each other."""
    table = plain_table(policy, ["figure"], list(figures))
    for row in figures["seen"]:
        table.add_row(row.replace("_", " "), *(f"{one[row]:.3g}" for one in figures.values()))
    return table


if __name__ == "__main__":
    run(app)
