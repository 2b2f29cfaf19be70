"""What a run measures: the pipeline, its pictures, and the rounds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_core.identity import digest

ROOT = Path(__file__).resolve().parents[2]
EMOJI = ROOT / "models" / "emoji"
PROMPTS = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class Plan:
    """Prompts, one seed each, and how often the clock runs.

    Attributes:
        names: whether the prompts are names of emoji, which a picture can be told by.
        batch: requests that are drawn together.
        rounds: turns of the original and a variant on the clock.
    """

    prompts: tuple[str, ...]
    names: bool
    batch: int
    rounds: int

    @property
    def requests(self) -> list[dict[str, Any]]:
        """A request for each prompt; its seed is its place."""
        return [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(self.prompts)]

    @property
    def conditions(self) -> dict[str, Any]:
        """What must be the same for two measurements to stand in one table."""
        return {"prompts": digest(list(self.prompts)), "batch": self.batch, "rounds": self.rounds}


def is_emoji(model: str) -> bool:
    """Whether `model` names the demonstration pipeline, whose pictures have names."""
    return Path(model).resolve() == EMOJI


def prompts_of(model: str, file: Path | None, images: int) -> tuple[tuple[str, ...], bool]:
    """So many prompts for a model, and whether they are names of emoji.

    From `file`, a prompt a line, where one is given; else names of emoji for the demonstration
    pipeline, drawn with a fixed seed, and everyday prompts for every other.

    Raises `ConfigError` where a file has none.
    """
    if file is None and is_emoji(model):
        return tuple(_emoji_names(images)), True
    found = _lines(file or PROMPTS)
    repeated = found * -(-images // len(found))
    return tuple(repeated[:images]), False


def _emoji_names(images: int) -> Sequence[str]:
    from emoji_data import load_emoji

    try:
        names = load_emoji().names
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    return random.Random(0).sample(names, min(images, len(names)))


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from None
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise ConfigError(f"{file}: has no prompt")
    return found
