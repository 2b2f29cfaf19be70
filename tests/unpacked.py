"""An unpacked archive as TorchServe hands it to a handler, without the archive tool."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from diffusion_core.identity import (
    CONFIG_NAME,
    PIPELINE_FOLDER,
    RECORD_NAME,
    ArchiveRecord,
    FileRecord,
    archive_identity,
)
from diffusion_core.model_config import parse_model_config

TINY_HANDLER: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "limits": {"min_size": 16, "max_size": 64, "max_images": 4},
    "defaults": {"num_inference_steps": 3},
    "warmup": {"steps": 1},
}


def unpack(folder: Path, pipeline: Any, **handler: Any) -> Path:
    """Writes `pipeline` and a model config with these handler settings; returns `folder`."""
    pipeline.save_pretrained(folder / PIPELINE_FOLDER, safe_serialization=True)
    document = {"batchSize": 8, "handler": {**TINY_HANDLER, **handler}}
    config = parse_model_config(document)
    (folder / CONFIG_NAME).write_text(yaml.safe_dump(document))
    files = {
        str(path.relative_to(folder)): FileRecord(
            size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    recipe = config.handler.recipe()
    record = ArchiveRecord(
        name="tiny",
        version="1.0",
        identity=archive_identity(files, recipe),
        pipeline_class=type(pipeline).__name__,
        licence=None,
        recipe=recipe,
        files=files,
    )
    (folder / RECORD_NAME).write_text(record.model_dump_json())
    return folder
