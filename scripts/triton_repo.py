"""Writes a Triton model repository: behind make triton-repo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from archiving.bars import Bars
from archiving.naming import ArchiveFormat
from archiving.order import Order
from archiving.report import size_text
from archiving.settings import default_config
from serving.cli import ROOT, console, fail, program, run
from triton_serving.repository import write_repository

app = program("A Triton model repository of a pipeline.")


@app.command()
def build(
    model: Annotated[str, typer.Option(help="Pipeline folder, checkpoint file or hub id.")],
    name: Annotated[str, typer.Option(help="The model's name.")],
    repository: Annotated[Path, typer.Option(help="Where the models go.")] = (
        ROOT / "model_repository"
    ),
    config: Annotated[
        Path | None,
        typer.Option(help="Model config; else config/models/NAME.yaml, default.yaml."),
    ] = None,
    version: Annotated[str, typer.Option(help="A whole number; Triton serves the largest.")] = "1",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a version that is there.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Convert pickled weights; they can run code.")
    ] = False,
    variant: Annotated[str | None, typer.Option(help="Weights of a variant, fp16 say.")] = None,
    pipeline_config: Annotated[
        Path | None, typer.Option(help="Pipeline folder with the configs of a checkpoint file.")
    ] = None,
) -> None:
    """Writes NAME, NAME_stream and an example ensemble into REPOSITORY."""
    order = Order(
        model=model,
        name=name,
        version=version,
        format=ArchiveFormat.NO_ARCHIVE,
        store=repository,
        config=config or default_config(ROOT / "config" / "models", name),
        mode=None,
        server_config=ROOT / "config" / "config.properties",
        variant=variant,
        pipeline_config=pipeline_config,
        allow_pickle=allow_pickle,
        force=force,
        check=False,
    )
    try:
        with Bars(Console(stderr=True)) as bars:
            written = write_repository(order, bars)
    except OSError as error:
        fail(f"{error.filename or repository}: {error.strerror or error}")
    names, size = written.names, size_text(written.size)
    console.print(f"{written.repository} ({size}, identity {written.record.identity})")
    console.print(f"  {names.pictures}: one answer a request, dynamic batching")
    console.print(f"  {names.stream}: progress, then the answer; decoupled")
    console.print(f"  {names.ensemble}: an example ensemble, with {names.thumbnail}")


if __name__ == "__main__":
    run(app)
