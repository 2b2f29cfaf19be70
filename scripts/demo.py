"""From a clone to a picture: behind make demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from serving.cli import RUN_FOLDER, RunFolder, console, program, run, step
from serving.demonstration import build_archive, is_current
from serving.fleet import Fleet
from serving.picture import curl_line, draw
from serving.server import Server
from serving.starting import bring_up

app = program("Archives the demonstration pipeline, serves it and asks it for a picture.")


@app.command()
def demo(
    prompt: str = "red heart",
    name: str = "emoji",
    seed: int = 1,
    out: Path = Path("run/demo.png"),
    port: Annotated[int | None, typer.Option(help="The first of five ports in a row.")] = None,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Leaves TorchServe running; `make stop` ends it."""
    server = Server(run_folder)
    # First: a port that is taken shows at once.
    running, _ = bring_up(server, port=port)
    archived = not is_current(name)
    if archived:
        console.print(f"archiving models/{name}", highlight=False)
        build_archive(name)
    management = server.management()
    registered = bool(management.versions(name))
    if archived or not registered:
        with step(f"loading {name}") as status:
            fleet = Fleet(server, status.update)
            if registered:
                fleet.update(name, f"{name}.mar")
            else:
                fleet.register(f"{name}.mar", name)
    with step("waiting until the model is READY"):
        management.wait_ready(name)
    fields = {"prompt": prompt, "seed": seed}
    with step("drawing"):
        drawn = draw(management, name, fields, out)
    console.print(f"{out.resolve()}  seed {drawn.seed}  {drawn.seconds:.2f} s", highlight=False)
    console.print("The same picture without this project:")
    console.out(curl_line(running.inference, name, json.dumps(fields), out), highlight=False)
    console.print("TorchServe goes on running; `make stop` ends it.")


if __name__ == "__main__":
    run(app)
