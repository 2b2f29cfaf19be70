"""Measure how well the demonstration pipeline draws the emoji it is asked for.

    python scripts/evaluate_demo.py models/emoji --contact-sheet sheet.png

Each name is drawn with its own fixed seed; the drawing counts as right when the emoji of that
name is the nearest one of the training set (top-1) or one of the nearest five (top-5).
"""

import json
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import schedulers
from diffusers.pipelines.stable_diffusion import StableDiffusionPipeline
from PIL import Image
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import emoji_data

DEFAULT_GUIDANCE = 3.0


@dataclass(frozen=True)
class Score:
    """How many of `count` drawings came out right, at one guidance scale."""

    guidance_scale: float
    count: int
    top1: float
    top5: float
    missed: list[str] = field(repr=False)


def load_pipeline(model: Path, scheduler: str | None = None) -> StableDiffusionPipeline:
    """The saved folder in float32, with its own scheduler or the class called `scheduler`.

    Raises:
        ValueError: diffusers has no scheduler of that name.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        if not scheduler.endswith("Scheduler") or not hasattr(schedulers, scheduler):
            raise ValueError(f"diffusers has no scheduler {scheduler!r}")
        chosen = getattr(schedulers, scheduler)
        pipeline.scheduler = chosen.from_config(pipeline.scheduler.config)
    return pipeline


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    steps: int,
    guidance_scale: float,
    batch: int,
) -> list[Image.Image]:
    """One 64×64 picture for each prompt; the seed of a prompt is its index."""
    pictures: list[Image.Image] = []
    with tqdm(total=len(prompts), desc=f"guidance {guidance_scale:g}") as bar:
        for first in range(0, len(prompts), batch):
            part = prompts[first : first + batch]
            seeds = range(first, first + len(part))
            pictures += pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            ).images
            bar.update(len(part))
    return pictures


def score(
    emoji: emoji_data.EmojiSet,
    prompts: list[str],
    pictures: list[Image.Image],
    guidance_scale: float,
) -> Score:
    """Compare each picture with every emoji of the set."""
    nearest = [emoji.nearest(picture, 5) for picture in pictures]
    right = [names[0] == prompt for prompt, names in zip(prompts, nearest, strict=True)]
    close = [prompt in names for prompt, names in zip(prompts, nearest, strict=True)]
    missed = [prompt for prompt, hit in zip(prompts, right, strict=True) if not hit]
    total = len(prompts)
    return Score(guidance_scale, total, sum(right) / total, sum(close) / total, missed)


def print_scores(scores: list[Score]) -> None:
    """The figures as a table on standard output."""
    table = Table("guidance_scale", "names", "top-1", "top-5")
    for line in scores:
        figures = (f"{line.top1:.1%}", f"{line.top5:.1%}")
        table.add_row(f"{line.guidance_scale:g}", str(line.count), *figures)
    Console().print(table)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Pipeline folder.", exists=True, file_okay=False)],
    count: Annotated[int, typer.Option(min=1, help="How many names to draw.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    guidance_scale: Annotated[
        list[float] | None, typer.Option(min=0, help="Repeatable; 3 where not given.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="A diffusers class name.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the names.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 25,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    contact_sheet: Annotated[Path | None, typer.Option(help="PNG file for 48 drawings.")] = None,
) -> None:
    """Draw names of the training set and count how often the emoji asked for is the nearest."""
    try:
        emoji = emoji_data.load_emoji()
        pipeline = load_pipeline(model, scheduler)
    except (FileNotFoundError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    prompts = random.Random(seed).sample(emoji.names, min(count, len(emoji)))
    guidance_scale = guidance_scale or [DEFAULT_GUIDANCE]
    scores = []
    for scale in guidance_scale:
        pictures = draw(pipeline, prompts, steps, scale, batch)
        scores.append(score(emoji, prompts, pictures, scale))
        if contact_sheet is not None and scale == guidance_scale[0]:
            emoji_data.contact_sheet(pictures[:48], prompts[:48], columns=8).save(
                contact_sheet, optimize=True
            )
    print_scores(scores)
    if output is not None:
        figures = {"steps": steps, "scheduler": type(pipeline.scheduler).__name__}
        output.write_text(json.dumps(figures | {"scores": list(map(asdict, scores))}, indent=1))


if __name__ == "__main__":
    typer.run(evaluate)
