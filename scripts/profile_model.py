"""Measure t(b) of a model on this machine, and keep it for the workers that will serve it.

python scripts/profile_model.py model_store/emoji.mar
python scripts/profile_model.py models/emoji --config config/models/emoji.yaml
"""

from __future__ import annotations

import logging
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zipfile import ZipFile, is_zipfile

import typer
from rich.console import Console
from rich.table import Table

from archiving.build import build
from archiving.naming import ArchiveFormat
from archiving.order import Order
from archiving.watcher import Watcher
from diffusion_core.errors import ServingError
from diffusion_core.identity import CONFIG_NAME, RECORD_NAME
from diffusion_core.model_config import read_model_config
from diffusion_core.profile import StepCurve

if TYPE_CHECKING:
    from diffusion_engine.service import DiffusionService

ROOT = Path(__file__).resolve().parent.parent


def main(
    model: Annotated[Path, typer.Argument(help="An archive of any format, or a pipeline folder.")],
    config: Annotated[Path | None, typer.Option(help="The config of a pipeline folder.")] = None,
) -> None:
    """Measure t(b) of a model on this machine, and keep it for the workers that will serve it."""
    console = Console()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        with unpacked(model, config) as folder, opened(folder) as service:
            profile = service.obtain_profile(inf, again=True)
            caps = {name: curve["cap"] for name, curve in service.curves(profile).items()}
    except (ServingError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if profile is None:
        typer.echo("error: nothing was measured; the log says why", err=True)
        raise typer.Exit(1)
    for name, curve in profile.shapes.items():
        console.print(_table(name, curve, caps[name]))


@contextmanager
def unpacked(model: Path, config: Path | None) -> Iterator[Path]:
    """The folder of an archive; a pipeline folder is made into one, of links."""
    if model.is_dir() and (model / RECORD_NAME).is_file():
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        scratch = Path(name)
        if model.is_dir():
            yield build(_order(model, config, scratch), Watcher()).target
        elif is_zipfile(model):
            with ZipFile(model) as archive:
                archive.extractall(scratch)  # noqa: S202 (zipfile keeps names inside)
            yield scratch
        else:
            with tarfile.open(model) as tar:
                tar.extractall(scratch, filter="data")
            yield next(scratch.iterdir())


@contextmanager
def opened(folder: Path) -> Iterator[DiffusionService]:
    """The model of an unpacked archive, loaded."""
    from diffusion_engine.service import DiffusionService

    with ExitStack() as stack:
        service = DiffusionService(folder, read_model_config(folder / CONFIG_NAME))
        stack.callback(service.close)
        yield service


def _order(model: Path, config: Path | None, store: Path) -> Order:
    return Order(
        model=str(model),
        name="profiled",
        version="1.0",
        format=ArchiveFormat.NO_ARCHIVE,
        store=store,
        config=config,
        mode=None,
        server_config=ROOT / "config" / "config.properties",
        variant=None,
        pipeline_config=None,
        allow_pickle=False,
        force=False,
        check=False,
    )


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
