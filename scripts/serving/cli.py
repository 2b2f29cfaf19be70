"""How the programs behind the make targets speak: one console, one sentence for an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import requests
import typer
from rich.console import Console
from rich.status import Status

from diffusion_core.errors import ServingError
from serving.errors import Trouble

ROOT = Path(__file__).parents[2]

console = Console(soft_wrap=True)

RunFolder = Annotated[
    Path, typer.Option("--run-folder", envvar="RUN_FOLDER", help="State, logs and temporary files.")
]
RUN_FOLDER = ROOT / "run"


def program(help_text: str) -> typer.Typer:
    """An application whose errors are not dressed up by typer."""
    return typer.Typer(help=help_text, pretty_exceptions_enable=False, add_completion=False)


def run(app: typer.Typer) -> None:
    """Runs `app`; what a person can put right ends in one sentence and exit code 1."""
    try:
        app()
    except (Trouble, ServingError) as error:
        fail(str(error))
    except requests.ConnectionError as error:
        url = error.request.url if error.request else "the server"
        fail(f"{url} does not answer; `make status` tells what runs")
    except KeyboardInterrupt:
        fail("Interrupted.", code=130)


def fail(sentence: str, code: int = 1) -> None:
    """Prints `sentence` to the error stream and exits."""
    Console(stderr=True, soft_wrap=True).print(sentence, style="red", markup=False, highlight=False)
    sys.exit(code)


def step(sentence: str) -> Status:
    """A spinner beside `sentence` while a long step runs."""
    return console.status(sentence)
