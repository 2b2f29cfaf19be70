"""Asks a served model for a picture: behind make image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli import RUN_FOLDER, RunFolder, console, program, run, step
from serving.picture import draw
from serving.server import Server

app = program("A picture from a served model.")


@app.command()
def image(
    prompt: Annotated[str, typer.Option()],
    name: str = "emoji",
    out: Path = Path("run/image.png"),
    steps: Annotated[int | None, typer.Option(help="The model's default without it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Drawn by the server without it.")] = None,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Writes the picture to OUT and prints path, seed and time."""
    wished: dict[str, Any] = {"prompt": prompt, "num_inference_steps": steps, "seed": seed}
    fields = {key: value for key, value in wished.items() if value is not None}
    with step("drawing"):
        drawn = draw(Server(run_folder).management(), name, fields, out)
    console.print(f"{drawn.path}  seed {drawn.seed}  {drawn.seconds:.2f} s", highlight=False)


if __name__ == "__main__":
    run(app)
