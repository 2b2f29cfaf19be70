"""The tgz and default formats: made by torch-model-archiver itself, from links to the sources.

It stages a full copy of the weights before it packs them, so these formats need twice the disk and
the time to compress what does not compress. Its files carry the times they were staged at, so the
same input does not give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from archiving.child import ChildError, run_python
from archiving.contents import HANDLER, MANIFEST, Contents
from archiving.hashes import HashCache, Progress, hash_file, silent
from archiving.linked import write_linked
from diffusion_core.identity import CONFIG_NAME, ArchiveRecord

# Packs in a process of its own: the archiver's staging folder is the process's temporary folder.
# The manifest is ours, as archive.json holds its hash; all else is the archiver's.
_PACK = """
import json, sys
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import package_model
order = json.load(sys.stdin)
package_model(ModelArchiverConfig(**order["config"]), order["manifest"])
"""


def staged_bytes(contents: Contents) -> int:
    """Bytes on the disk while packing: the archiver's copy and, if nothing shrinks, the archive."""
    return 2 * contents.size


def write_with_archiver(
    contents: Contents, target: Path, cache: HashCache, progress: Progress
) -> tuple[ArchiveRecord, str]:
    """Writes `target`, whose suffix names the format; returns its record and its SHA-256."""
    source = target.parent / "links"
    record, _ = write_linked(contents, source, cache, progress)
    manifest = source / MANIFEST
    text = manifest.read_text(encoding="utf-8")
    manifest.unlink()
    manifest.parent.rmdir()
    output, staging = target.parent / "packed", target.parent / "staging"
    output.mkdir()
    staging.mkdir()
    config = {
        "model_name": contents.name,
        "version": contents.version,
        "handler": str(source / HANDLER),
        "config_file": str(source / CONFIG_NAME),
        "extra_files": str(source),
        "export_path": str(output),
        "archive_format": "tgz" if target.name.endswith(".tar.gz") else "default",
    }
    _pack({"config": config, "manifest": text}, staging)
    (output / target.name).rename(target)
    return record, hash_file(target, silent).sha256


def _pack(order: dict[str, object], staging: Path) -> None:
    try:
        run_python(["-c", _PACK], order, environment={"TMPDIR": str(staging)})
    except ChildError as error:
        raise OSError(f"torch-model-archiver failed: {error}") from None
