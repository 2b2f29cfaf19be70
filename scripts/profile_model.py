"""Measure t(b) of a model on this machine, and keep it for the workers that will serve it.

python scripts/profile_model.py model_store/emoji.mar
python scripts/profile_model.py models/emoji --config config/models/emoji.yaml
python scripts/profile_model.py model_store/emoji.mar --machine cpu-2 --out profiles/emoji.json
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from archiving.unpacked import unpacked
from diffusion_core.errors import ConfigError, ServingError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config
from diffusion_core.profile import StepCurve
from diffusion_costs.prices import Prices
from serving.errors import Trouble
from tuning.measuring import Subject, obtain_service, save
from tuning.report import parts_table

if TYPE_CHECKING:
    from diffusion_engine.service import DiffusionService

ROOT = Path(__file__).resolve().parent.parent


def main(
    model: Annotated[Path, typer.Argument(help="An archive of any format, or a pipeline folder.")],
    config: Annotated[Path | None, typer.Option(help="The config of a pipeline folder.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="This machine in config/prices.yaml: measure all parts.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the parts, to carry away.")] = None,
) -> None:
    """Measure t(b) of a model on this machine, and keep it for the workers that will serve it."""
    console = Console()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        if machine is not None or out is not None:
            _measure_parts(Subject(model, config, machine=machine), out, console)
            return
        with unpacked(model, config) as folder, opened(folder) as service:
            profile = service.obtain_profile(inf, again=True)
            caps = {name: curve["cap"] for name, curve in service.curves(profile).items()}
    except (ServingError, Trouble, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if profile is None:
        typer.echo("error: nothing was measured; the log says why", err=True)
        raise typer.Exit(1)
    for name, curve in profile.shapes.items():
        console.print(_table(name, curve, caps[name]))


@contextmanager
def opened(folder: Path) -> Iterator[DiffusionService]:
    """The model of an unpacked archive, loaded."""
    from diffusion_engine.service import DiffusionService

    with ExitStack() as stack:
        service = DiffusionService(folder, read_model_config(folder / CONFIG_NAME))
        stack.callback(service.close)
        yield service


def _measure_parts(subject: Subject, out: Path | None, console: Console) -> None:
    """Every part of a picture, side by side with TorchServe: what planners simulate with."""
    known = Prices.read(ROOT / "config" / "prices.yaml").machines
    if subject.machine is not None and subject.machine not in known:
        raise ConfigError(
            f"machine: {subject.machine} is none of config/prices.yaml: {', '.join(known)}",
            field="machine",
        )
    profile = obtain_service(subject, console.print, again=True)
    if out is not None:
        save(profile, out)
        console.print(f"written to {out}")
    console.print(parts_table(profile))


def _table(name: str, curve: StepCurve, cap: int) -> Table:
    table = Table(title=f"t(b) at {name}", caption=f"stopped: {curve.stopped}")
    for column in ("rows", "seconds", "rows per second", "against one", ""):
        table.add_column(column, justify="right")
    first = next(iter(curve.seconds.items()))
    for rows, seconds in curve.seconds.items():
        throughput = rows / seconds
        gain = throughput * first[1] / first[0]
        mark = "cap" if rows == cap else ""
        table.add_row(str(rows), f"{seconds:.4g}", f"{throughput:.4g}", f"{gain:.2f}×", mark)
    return table


if __name__ == "__main__":
    typer.run(main)
