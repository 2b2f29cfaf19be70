"""The last check of an archive: loaded in a fresh process as TorchServe loads it, it must draw."""

from __future__ import annotations

import base64
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from archiving.child import ChildError, run_python
from archiving.contents import HANDLER
from archiving.naming import ArchiveFormat
from archiving.workspace import require_space
from diffusion_core.errors import ServingError
from diffusion_core.model_config import ModelConfig
from diffusion_core.source_image import plain_image

_WORKER = Path(__file__).with_name("trial_worker.py")

_FEW_STEPS = 2


class TrialError(ServingError):
    """The archive does not load, or what it answers is no picture."""

    code = "archive_does_not_draw"


@dataclass(frozen=True)
class Trial:
    """The picture that was drawn, and the seconds from a new process to it."""

    content_type: str
    bytes: int
    seconds: float


def try_archive(
    built: Path,
    form: ArchiveFormat,
    config: ModelConfig,
    scratch: Path,
    *,
    inpaints_alone: bool = False,
) -> Trial:
    """Unpacks into `scratch` unless it is a folder, loads it and asks for one picture.

    A model that does nothing but inpaint gets a picture to draw over.
    """
    folder = built if form is ArchiveFormat.NO_ARCHIVE else _unpack(built, form, scratch / "trial")
    limits = config.handler.limits
    order = {
        "folder": str(folder),
        "handler": HANDLER,
        "batch_size": config.batch_size,
        "request": {
            "prompt": "a red heart",
            "num_inference_steps": min(max(_FEW_STEPS, limits.min_steps), limits.max_steps),
            "seed": 0,
            **(_drawn_over(limits.min_size) if inpaints_alone else {}),
        },
    }
    began = time.monotonic()
    try:
        printed = run_python([str(_WORKER)], order, environment=_environment(folder), folder=folder)
    except ChildError as error:
        raise TrialError(f"{built.name}: does not draw: {error}") from None
    seconds = time.monotonic() - began
    answer = json.loads(printed.splitlines()[-1])
    return Trial(answer["content_type"], answer["bytes"], seconds)


def _drawn_over(size: int) -> dict[str, str]:
    """A white picture, all of it to be drawn anew."""
    pictures = {"image": plain_image(size, size), "mask_image": plain_image(size, size, "L")}
    return {name: base64.b64encode(one.data).decode() for name, one in pictures.items()}


def _environment(folder: Path) -> dict[str, str]:
    """TorchServe puts the model's folder on the path; nothing of the repository is to be on it.

    No bytecode is written: a folder that is served in place holds what its record says.
    """
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def _unpack(built: Path, form: ArchiveFormat, folder: Path) -> Path:
    if form is ArchiveFormat.TGZ:
        with tarfile.open(built) as archive:
            require_space(folder.parent, sum(member.size for member in archive))
            archive.extractall(folder, filter="data")
        return next(folder.iterdir())
    with ZipFile(built) as archive:
        require_space(folder.parent, sum(info.file_size for info in archive.infolist()))
        archive.extractall(folder)  # noqa: S202 (our own file, and zipfile keeps names inside)
    return folder
