"""Choose how a machine serves a model: simulated from measurements, then checked under load.

python scripts/tune.py --model models/emoji --config config/models/emoji.yaml --p99 3 --rate 3
python scripts/tune.py --model models/emoji --p99 3 --trace day.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from archiving.settings import default_config
from diffusion_core.errors import ServingError
from diffusion_costs.rates import parse_rate
from diffusion_costs.traces import Trace, read_trace
from diffusion_costs.tuning.configurations import Configuration, configurations
from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.search import FINALISTS, Search, draws_of, search
from diffusion_costs.tuning.simulation import Asked, replayed
from saving.inputs import of_one_model
from serving.errors import Trouble
from tuning.checking import FEWEST, Check, arrivals, check
from tuning.measuring import Subject, obtain_service, require_service
from tuning.record import write_config, write_record
from tuning.report import plot, tables, verdict_table, what_could_be
from tuning.served import Tuner

ROOT = Path(__file__).resolve().parent.parent
console = Console()


def main(
    model: Annotated[Path, typer.Option(help="A pipeline folder.")],
    p99: Annotated[float, typer.Option(min=0.001, help="The 99th percentile to meet, seconds.")],
    config: Annotated[Path | None, typer.Option(help="The model's config.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests: 3 (a second), 90/min, 1/day.")] = None,
    trace: Annotated[Path | None, typer.Option(help="A trace file, instead of a rate.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the trace.")] = None,
    profile: Annotated[Path | None, typer.Option(help="A service profile to use.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="The most workers to try.")] = 2,
    check_s: Annotated[float, typer.Option(min=0, help="Seconds of load run; 0: none.")] = 120,
    again: Annotated[bool, typer.Option(help="Measure again what was measured before.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of config, record and plot.")] = Path(
        "run/tune"
    ),
) -> None:
    """Choose how a machine serves a model: simulated from measurements, then checked under load."""
    config = config or default_config(ROOT / "config" / "models", model.name)
    try:
        per_second, traced = _traffic(rate, trace, name or model.name)
        measured = _measured(Subject(model, config, workers), profile, again)
        tuner = Tuner(str(model), config, console.print)
        if traced is None:
            draws = draws_of(measured, per_second or 0.0)
        else:
            draws = [replayed(measured, traced)]
        found = _searched(measured, tuner.queue_size, draws, p99)
        console.print(*tables(found, per_second), sep="\n")
        out.mkdir(parents=True, exist_ok=True)
        run = None
        if found.winner is not None:
            chosen = found.winner.configuration
            written = out / f"{model.name}.yaml"
            write_config(written, tuner.document, chosen, p99)
            console.print(f"make archive MODEL={model} NAME={model.name} CONFIG={written}")
            if check_s:
                asked = arrivals(measured, per_second, draws[0], check_s)
                run = _checked(measured, chosen, asked, tuner, check_s)
    except (ServingError, Trouble, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if found.winner is None:
        for line in what_could_be(found, draws[0], measured, per_second):
            console.print(line)
    write_record(out / "tuning.json", found, measured, per_second, run)
    latencies = None if run is None else (run.foreseen.latencies, run.seen.latencies)
    title = f"{model.name}, {rate or trace}, 99th percentile within {p99:g} s"
    plot(found, out / "tuning.png", title, latencies)
    if found.winner is None or (run is not None and not run.holds):
        raise typer.Exit(1)


def _traffic(rate: str | None, trace: Path | None, model: str) -> tuple[float | None, Trace | None]:
    if (rate is None) == (trace is None):
        raise typer.BadParameter("give a rate or a trace: RATE= or TRACE=, one of the two")
    if rate is not None:
        return parse_rate(rate), None
    assert trace is not None
    _, mine = of_one_model(read_trace(trace), model, model, console.print)
    return None, mine


def _measured(subject: Subject, profile: Path | None, again: bool) -> ServiceProfile:
    if profile is not None:
        return require_service(profile, subject)
    return obtain_service(subject, console.print, again=again)


def _searched(
    profile: ServiceProfile, queue_size: int, draws: Sequence[Sequence[Asked]], p99: float
) -> Search:
    tried = list(configurations(profile, queue_size))
    with Progress(transient=True) as progress:
        task = progress.add_task("simulating", total=len(tried) + FINALISTS)
        return search(profile, tried, draws, p99, lambda: progress.advance(task))


def _checked(
    profile: ServiceProfile,
    chosen: Configuration,
    asked: Sequence[Asked],
    tuner: Tuner,
    seconds: float,
) -> Check | None:
    if len(asked) < FEWEST:
        console.print(
            f"Not checked: {len(asked)} requests come in {seconds:g} s, and fewer than {FEWEST}"
            " tell nothing of a 99th percentile. The figures above are simulated."
        )
        return None
    with tuner, Progress(transient=True) as progress:
        task = progress.add_task("load run", total=len(asked))
        run = check(profile, chosen, asked, tuner, lambda: progress.advance(task))
    console.print(verdict_table(run.verdicts))
    return run


if __name__ == "__main__":
    typer.run(main)
