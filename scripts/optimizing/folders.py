"""Variants that change a pipeline's folder: weights that are zeros, fewer channels, a tiny VAE."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import DENOISERS
from diffusion_core.identity import digest

Tell = Callable[[str], None]

_DIGITS = 12
"""Of the digest in a copy's name."""


def prepare(source: Path, what: Mapping[str, Any], name: Path, tell: Tell) -> Path:
    """The folder of a variant: `source` itself, or a copy beside `name` that was changed.

    A copy is whole or not there. One from an earlier run is taken if it was made of the same
    files; those made of others are removed.
    Raises `ConfigError` where the pipeline cannot be changed so.
    """
    if not what:
        return source
    target = name.with_name(f"{name.name}-{_made_of(source, what)}")
    if target.is_dir():
        return target
    for old in name.parent.glob(f"{name.name}-{'[0-9a-f]' * _DIGITS}"):
        shutil.rmtree(old)
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    try:
        for change, value in what.items():
            _CHANGES[change](partial, value, tell)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _made_of(source: Path, what: Mapping[str, Any]) -> str:
    """Tells copies apart that were made of other files, or otherwise."""
    folders = [source, *(Path(value) for value in what.values() if isinstance(value, str))]
    files = {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }
    return digest({"what": dict(what), "files": files})[:_DIGITS]


def _mask(folder: Path, part: float, tell: Tell) -> None:
    """Writes the zeros into the denoiser's weights, which a worker's own mask then leaves as is."""
    from diffusion_engine.recipes.masks import mask_smallest

    tell(f"setting {part:.0%} of the weights to zero")
    for home in _homes(folder):
        model = _load(home)
        dtype = _stored(home)
        mask_smallest(model, part)
        model.to(dtype).save_pretrained(home)


def _channels(folder: Path, part: float, tell: Tell) -> None:
    from optimizing.channels import cut_channels, tune_again

    tell(f"taking out {part:.0%} of the channels")
    cut_channels(folder, part)
    tune_again(folder, tell)


def _tiny_vae(folder: Path, weights: str, tell: Tell) -> None:
    tell("putting in the tiny VAE")
    config = Path(weights) / "config.json"
    if not config.is_file():
        raise ConfigError(f"{config}: is missing: the folder of an AutoencoderTiny is asked for")
    name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    if name != "AutoencoderTiny":
        raise ConfigError(f"{config}: is of {name}, not of AutoencoderTiny")
    shutil.rmtree(folder / "vae")
    shutil.copytree(weights, folder / "vae")
    index = folder / "model_index.json"
    document = json.loads(index.read_text(encoding="utf-8"))
    document["vae"] = ["diffusers", name]
    index.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


_CHANGES: dict[str, Callable[[Path, Any, Tell], None]] = {
    "mask": _mask,
    "channels": _channels,
    "tiny_vae": _tiny_vae,
}


def _homes(folder: Path) -> list[Path]:
    found = [folder / name for name in DENOISERS if (folder / name / "config.json").is_file()]
    if not found:
        raise ConfigError(f"{folder}: has none of {', '.join(DENOISERS)}")
    return found


def _load(home: Path) -> Any:
    import diffusers

    name = json.loads((home / "config.json").read_text(encoding="utf-8"))["_class_name"]
    return getattr(diffusers, name).from_pretrained(home, local_files_only=True)


def _stored(home: Path) -> Any:
    """The dtype of the weights on disk, which a copy keeps."""
    from safetensors import safe_open

    first = min(home.glob("*.safetensors"))
    with safe_open(first, "pt") as weights:
        return weights.get_tensor(next(iter(weights.keys()))).dtype
