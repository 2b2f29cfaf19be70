"""Builds and inspects model archives: `python scripts/archive.py build --help`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from archiving.bars import Bars
from archiving.build import build as build_archive
from archiving.inspection import DamagedError, inspect_archive
from archiving.naming import ArchiveFormat
from archiving.order import Order
from archiving.report import print_report
from archiving.settings import Mode, default_config
from archiving.trial import TrialError
from diffusion_core.errors import ServingError

REPOSITORY = Path(__file__).resolve().parent.parent

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def build(
    model: Annotated[str, typer.Option(help="Pipeline folder, checkpoint file or hub id.")],
    name: Annotated[str, typer.Option(help="The model's name, and the archive's.")],
    archive_format: Annotated[
        ArchiveFormat, typer.Option("--format", help="The archive's format.")
    ] = ArchiveFormat.ZIP_STORE,
    config: Annotated[
        Path | None,
        typer.Option(help="Model config; else config/models/NAME.yaml, default.yaml."),
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Batching; else as the config says.")] = None,
    version: Annotated[str, typer.Option(help="The model's version.")] = "1.0",
    check: Annotated[bool, typer.Option("--check", help="Draw a picture with the result.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an archive that is there.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Convert pickled weights to safetensors. Loading a pickle can run any code.",
        ),
    ] = False,
    variant: Annotated[
        str | None, typer.Option(help="Weights of a variant, fp16 say, where there are any.")
    ] = None,
    pipeline_config: Annotated[
        Path | None, typer.Option(help="Pipeline folder with the configs of a checkpoint file.")
    ] = None,
    model_store: Annotated[Path, typer.Option(help="Where the archive goes.")] = (
        REPOSITORY / "model_store"
    ),
    server_config: Annotated[
        Path, typer.Option(help="The server's settings, whose message sizes must do.")
    ] = REPOSITORY / "config" / "config.properties",
) -> None:
    """Build a model archive: checked, then written whole or not at all."""
    console = Console()
    with errors_told(), Bars(Console(stderr=True)) as bars:
        order = Order(
            model=model,
            name=name,
            version=version,
            format=archive_format,
            store=model_store,
            config=config or default_config(REPOSITORY / "config" / "models", name),
            mode=mode,
            server_config=server_config,
            variant=variant,
            pipeline_config=pipeline_config,
            allow_pickle=allow_pickle,
            force=force,
            check=check,
        )
        built = build_archive(order, bars)
    print_report(console, built)


@app.command()
def inspect(archive: Annotated[Path, typer.Argument(help="An archive of any format.")]) -> None:
    """Show what an archive holds, and hold its files against their hashes."""
    with errors_told():
        with Bars(Console(stderr=True)) as bars:
            inspection = inspect_archive(archive, bars)
        inspection.print(Console())
    if inspection.faults:
        raise typer.Exit(1)


@contextmanager
def errors_told() -> Iterator[None]:
    """Errors as one sentence: 2 for what was asked, 1 for what the machine or the archive did."""
    try:
        yield
    except (TrialError, DamagedError) as error:
        _end(error.message, 1)
    except ServingError as error:
        _end(error.message, 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}", 1)


def _end(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
