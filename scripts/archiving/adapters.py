"""The LoRAs that a model config names: found, checked, and brought into the archive's own form."""

from __future__ import annotations

import re
from pathlib import Path

from archiving.child import ChildError, run_python
from archiving.component import SourceFile
from archiving.weights import PICKLE_RISK, PICKLE_SUFFIXES, read_safetensors
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import HandlerSettings

_WORKER = Path(__file__).with_name("lora_worker.py")

_FOLDERS_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls a LoRA's file in a folder of its own."""

# How the tensors' names of a LoRA end: diffusers' present and past ones, PEFT's, kohya's.
_LOW_RANK = re.compile(
    r"(?:[._](?:lora_[AB]|lora_down|lora_up|down|up)(?:\.\w+)?\.weight|\.alpha)$"
)

_OTHERS = {
    r"dora_scale|lora_magnitude_vector": "is a DoRA: what it adds to a layer depends on all of the "
    "layer's weights, so rows of one call cannot differ in it",
    r"hada_w|lokr_|oft_|boft_|glora|ia3": "is a LoHa, LoKr or of another kind that is not low-rank "
    "factors of a layer",
    r"lora_mid": "has a third factor (CP decomposition), which is not served",
    r"lora_[AB]\.bias|\.diff_b$": "has biases beside its low-rank weights, which are not served",
}


def convert(
    handler: HandlerSettings, config: Path | None, pipeline: Path, workspace: Path
) -> tuple[SourceFile, ...]:
    """The config's adapters as files of an archive, made in `workspace`.

    Args:
        config: the model config's file, from whose folder paths begin.
        pipeline: the pipeline's folder.

    Raises `ConfigError` for a file that is missing, damaged, no LoRA (a DoRA, a pickle), not of
    this pipeline, or beyond a bound of the config.
    """
    settings = handler.adapters
    if not settings.files:
        return ()
    home = Path() if config is None else config.parent
    sources = {name: _source(name, home / place) for name, place in settings.files.items()}
    places = settings.packed().files
    targets = {name: workspace / place for name, place in places.items()}
    next(iter(targets.values())).parent.mkdir()
    found = settings.model_copy(update={"files": {n: str(p) for n, p in sources.items()}})
    order = {
        "pipeline": str(pipeline.resolve()),
        "settings": found.model_dump(mode="json"),
        "dtype": handler.dtype,
        "targets": {name: str(path) for name, path in targets.items()},
    }
    try:
        run_python([str(_WORKER)], order, environment={"HF_HUB_OFFLINE": "1"})
    except ChildError as error:
        raise ConfigError(f"handler.adapters: {error}", field="handler.adapters") from None
    return tuple(SourceFile(places[name], target) for name, target in targets.items())


def _source(name: str, path: Path) -> Path:
    path = (path / _FOLDERS_FILE if path.is_dir() else path).resolve()
    field = f"handler.adapters.files.{name}"
    if not path.is_file():
        raise ConfigError(f"{field}: {path}: is missing", field=field)
    if path.suffix in PICKLE_SUFFIXES:
        raise ConfigError(f"{field}: {path}: {PICKLE_RISK}", field=field)
    try:
        tensors = read_safetensors(path).tensors
    except ConfigError as error:
        raise ConfigError(f"{field}: {error.message}", field=field) from None
    for tensor in sorted(tensors):
        for pattern, reason in _OTHERS.items():
            if re.search(pattern, tensor):
                raise ConfigError(f"{field}: {path}: {reason}", field=field)
        if not _LOW_RANK.search(tensor):
            raise ConfigError(
                f"{field}: {path}: holds {tensor}, which is not a factor of a LoRA", field=field
            )
    return path
