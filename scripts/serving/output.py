"""Folders that a program empties before it writes into them."""

from __future__ import annotations

import shutil
from pathlib import Path

from serving.errors import Trouble


def emptied(folder: Path, program: str) -> Path:
    """`folder`, there and empty but for a mark that it is `program`'s.

    Raises:
        Trouble: there is something in it, and no mark of a former run; nothing was removed.
    """
    mark = folder / f".{program}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inside = list(folder.iterdir())
        if inside and not mark.is_file():
            raise Trouble(
                f"{folder.resolve()} is not empty, and no former {program} made it: what is in it "
                "would be lost. Name another folder with OUT=, or remove this one yourself."
            )
        # First, so that a run that ends half way leaves a folder that the next one may empty.
        mark.touch()
        for one in inside:
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            elif one != mark:
                one.unlink()
    except OSError as error:
        raise Trouble(f"{folder} cannot be emptied: {error.strerror or error}") from None
    return folder
