"""Checkpoints and pickles into pipeline folders of safetensors, by diffusers, in a process apart.

The process is apart because torch and a whole model in memory must not stay with the archiver, and
because loading a pickle may run code.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from archiving.child import ChildError, run_python
from archiving.weights import read_json
from diffusion_core.errors import ConfigError

_CONVERT = """
import json, sys
import torch
import diffusers
order = json.load(sys.stdin)
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
known = {"dtype": getattr(torch, order["dtype"])} if order["dtype"] else {}
if order["single"]:
    # Components without weights in the file, the safety checker say, are in no archive of it.
    kind = getattr(diffusers, order["class"])
    if order["config"]:
        known |= {"config": order["config"], "local_files_only": True}
    pipeline = kind.from_single_file(order["source"], **known)
else:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        order["source"], variant=order["variant"], local_files_only=True, **known
    )
pipeline.save_pretrained(order["target"], safe_serialization=True)
"""

_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def convert_checkpoint(file: Path, config: Path | None, dtype: str | None, target: Path) -> None:
    """A single-file checkpoint as a pipeline folder at `target`, in the dtype it is in.

    `config` is a pipeline folder whose weights are not needed: it names the classes, their configs
    and the tokenizer. Without one, diffusers looks for it on the hub.
    """
    name = "StableDiffusionPipeline"
    if config is not None:
        name = str(read_json(config / "model_index.json").get("_class_name"))
    elif os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(f"{file}: {_NEEDS_CONFIG}")
    order = {
        "single": True,
        "class": name,
        "source": str(file),
        "config": str(config) if config else None,
        "dtype": _TORCH_DTYPES.get(dtype or ""),
        "target": str(target),
    }
    _run(order, file, offline=config is not None)


def convert_folder(folder: Path, variant: str | None, target: Path) -> None:
    """A pipeline folder with pickled weights as one with safetensors at `target`."""
    order = {
        "single": False,
        "source": str(folder),
        "variant": variant,
        "dtype": None,
        "target": str(target),
    }
    _run(order, folder, offline=True)


_NEEDS_CONFIG = (
    "a single checkpoint needs a pipeline folder with its configs and tokenizer: name one with "
    "--pipeline-config"
)


def _run(order: dict[str, object], source: Path, *, offline: bool) -> None:
    try:
        run_python(
            ["-c", _CONVERT], order, environment={"HF_HUB_OFFLINE": "1"} if offline else None
        )
    except ChildError as error:
        hint = f"; {_NEEDS_CONFIG}" if order["single"] and not order["config"] else ""
        raise ConfigError(f"{source}: cannot be converted: {error}{hint}") from None
    _forget_places(Path(str(order["target"])))


def _forget_places(folder: Path) -> None:
    """Takes out of the configs where the models came from: a temporary name in most, never used."""
    for path in folder.rglob("*.json"):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict) and "_name_or_path" in document:
            del document["_name_or_path"]
            path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
