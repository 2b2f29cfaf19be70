"""One component of a pipeline: its config, and which of its files an archive needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from archiving.weights import (
    PICKLE_SUFFIXES,
    Weights,
    read_json,
    read_weights,
    require_indexed,
    shards,
)
from diffusion_core.errors import ConfigError

# What diffusers and transformers call a model's weights.
_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")

# The config of each kind of component that has no weights, and what its class is called.
_PLAIN_CONFIGS = {
    "Scheduler": ("scheduler_config.json",),
    "Tokenizer": ("tokenizer_config.json",),
    "FeatureExtractor": ("preprocessor_config.json", "processor_config.json"),
    "Processor": ("preprocessor_config.json", "processor_config.json"),
}

# Small files that a component's class reads: configs, vocabularies, merges, sentencepiece models.
_TEXT_SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja"})

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


class SourceFile(NamedTuple):
    """A file's path inside the pipeline folder of the archive, and where it is now."""

    path: str
    source: Path


@dataclass(frozen=True)
class Component:
    """A component that was found whole; `bytes` is the size of all its files.

    Schedulers and tokenizers have weights of zero bytes.
    """

    name: str
    class_name: str
    config: dict[str, Any]
    files: tuple[SourceFile, ...]
    bytes: int
    weights: Weights
    has_variant: bool = False


def read_component(
    folder: Path, name: str, class_name: str, variant: str | None, allow_pickle: bool
) -> Component:
    """The component in `folder / name`; `ConfigError` names what is missing or broken."""
    home = folder / name
    if not home.is_dir():
        raise ConfigError(f"{home}: is missing, though model_index.json names {name}")
    texts = tuple(SourceFile(f"{name}/{path.name}", path) for path in _texts(home))
    plain = next((names for word, names in _PLAIN_CONFIGS.items() if word in class_name), None)
    config = _config(home, plain or ("config.json",))
    if plain is not None:
        if "Tokenizer" in class_name:
            _require_vocabulary(home)
        return Component(name, class_name, config, texts, _bytes(texts), Weights())
    found, weights, chosen = _weights(home, variant, allow_pickle)
    files = texts + tuple(SourceFile(f"{name}/{target}", source) for target, source in found)
    return Component(name, class_name, config, files, _bytes(files), weights, chosen is not None)


def _bytes(files: tuple[SourceFile, ...]) -> int:
    return sum(file.source.stat().st_size for file in files)


def _texts(home: Path) -> Iterator[Path]:
    for path in sorted(home.iterdir()):
        if path.is_symlink() and not path.exists():
            raise ConfigError(f"{path}: is a link to a file that is not there")
        if path.suffix in _TEXT_SUFFIXES and ".index." not in path.name and path.is_file():
            if path.suffix == ".json":
                _require_json(path)
            yield path


def _require_json(path: Path) -> None:
    """vocab.json and the like may be large or lists; configs are objects: both must parse."""
    if path.name.endswith("config.json"):
        read_json(path)


def _config(home: Path, names: tuple[str, ...]) -> dict[str, Any]:
    for name in names:
        if (home / name).is_file():
            return read_json(home / name)
    raise ConfigError(f"{home / names[0]}: is missing")


def _require_vocabulary(home: Path) -> None:
    if not any(next(home.glob(pattern), None) for pattern in _VOCABULARIES):
        raise ConfigError(f"{home}: has no vocabulary")


def _weights(
    home: Path, variant: str | None, allow_pickle: bool
) -> tuple[list[tuple[str, Path]], Weights, str | None]:
    """Weight files as (name in the archive, source), what they hold, and the variant they are of.

    A variant's files take the plain names, so that whoever loads the archive need not know of it.
    """
    for chosen in dict.fromkeys((variant, None)):
        for stem in _WEIGHT_NAMES:
            for suffix in (".safetensors", ".bin"):
                found = _named(home, stem, suffix, chosen, allow_pickle)
                if found is not None:
                    return *found, chosen
    raise ConfigError(_why_no_weights(home))


def _named(
    home: Path, stem: str, suffix: str, variant: str | None, allow_pickle: bool
) -> tuple[list[tuple[str, Path]], Weights] | None:
    infix = f".{variant}" if variant else ""
    single = home / f"{stem}{infix}{suffix}"
    index = home / f"{stem}{suffix}.index{infix}.json"
    if single.is_file():
        return [(f"{stem}{suffix}", single)], read_weights(single, allow_pickle)
    if not index.is_file():
        return None
    files = shards(index)
    weights = sum((read_weights(file, allow_pickle) for file in files), Weights())
    if suffix == ".safetensors":
        require_indexed(index, weights)
    renamed = [(f"{stem}{suffix}.index.json", index)]
    return renamed + [(file.name, file) for file in files], weights


def _why_no_weights(home: Path) -> str:
    others = [path.name for path in sorted(home.iterdir()) if path.suffix == ".safetensors"]
    if others:
        return f"{home}: has no weights of the chosen variant, only {', '.join(others)}"
    pickles = [path.name for path in sorted(home.iterdir()) if path.suffix in PICKLE_SUFFIXES]
    if pickles:
        return f"{home}: has weights under names that diffusers does not look for: {pickles[0]}"
    return f"{home}: has no weights"
