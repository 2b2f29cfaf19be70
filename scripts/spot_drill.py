"""The spot drill: pods, gateways and a Redis as processes, taken away at random: make spot-drill.

    python scripts/spot_drill.py --minutes 10

Ends with code 1 where a promise was broken: a job that was lost or failed, a picture that is not
the one of its seed, a step drawn again though a checkpoint had it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from drilling.drill import Drill, Plan
from drilling.figures import Figures
from drilling.pods import MODEL
from drilling.report import publish, table, write
from serving.cli import ROOT, console, program, run
from serving.errors import Trouble
from serving.output import emptied

app = program("Machines that are taken away while they draw.")

# Small enough for three workers on a machine of few cores; the bound of rows is given, so that no
# worker measures it anew while others work.
_CONFIG = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 4,
    "maxBatchDelay": 20,
    "continuousBatching": True,
    "responseTimeout": 120,
    "startupTimeout": 280,
    "handler": {
        "device": "cpu",
        "threads": 1,
        "limits": {"min_size": 32, "max_size": 128, "max_steps": 100, "max_timeout_s": 100},
        "defaults": {"width": 64, "height": 64, "guidance_scale": 3.0},
        "engine": {"max_rows": 8},
        "warmup": {"steps": 1},
    },
}


@app.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long jobs come.")] = 10.0,
    pods: Annotated[int, typer.Option(min=1, max=8, help="Endpoints at most.")] = 3,
    load: Annotated[float, typer.Option(min=0.01, help="Of what one endpoint draws.")] = 1.2,
    reclaim_s: Annotated[float, typer.Option(min=1, help="Seconds between losses.")] = 25.0,
    seed: Annotated[int, typer.Option(help="Draws requests and losses.")] = 11,
    out: Annotated[
        Path, typer.Option(help="For the drill and its report: empty, or a former drill's.")
    ] = (ROOT / "run" / "spot-drill"),
    docs: Annotated[bool, typer.Option("--docs", help="Renew docs/spot.md as well.")] = False,
) -> None:
    """Drills, and writes report.json, report.md and timeline.png."""
    if shutil.which("redis-server") is None:
        raise Trouble("The drill needs a redis-server; on Debian: apt-get install redis-server.")
    emptied(out, "spot-drill")
    plan = Plan(60 * minutes, pods=pods, load=load, reclaim_s=reclaim_s, seed=seed)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("building the archive")
        store = model_store(out)

        def say(text: str) -> None:
            bars.update(task, description=text)
            if not console.is_terminal:
                console.print(f"  {text}")

        record = asyncio.run(Drill(plan, store, out / "processes", say).run())
    figures = Figures.of(record)
    write(record, figures, out)
    console.print(table(figures))
    if docs:
        publish(record, figures, ROOT / "docs")
    if figures.broken:
        raise Trouble(f"Promises were broken: {'; '.join(figures.broken)}. See {out}.")


def model_store(out: Path) -> Path:
    """A model store with the demonstration pipeline in continuous mode."""
    store = out / "model-store"
    store.mkdir(parents=True)
    config = out / f"{MODEL}.yaml"
    config.write_text(yaml.safe_dump(_CONFIG))
    command = [sys.executable, "scripts/archive.py", "build", "--force", "--name", MODEL]
    command += ["--model", str(ROOT / "models" / "emoji"), "--config", str(config)]
    command += ["--format", "no-archive", "--model-store", str(store)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Trouble(f"The archive was not built: {(done.stdout + done.stderr)[-500:]}")
    return store


if __name__ == "__main__":
    run(app)
