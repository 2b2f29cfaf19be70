"""Draws a picture of an unpacked archive into a file. Run by the Python of a clean environment,
with nothing of the repository beside it.

    python trial.py FOLDER PICTURE
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(folder: Path, picture: Path) -> None:
    """Loads, warms up, draws, writes."""
    from diffusion_core.identity import CONFIG_NAME
    from diffusion_core.model_config import read_model_config
    from diffusion_engine.service import open_service

    service = open_service(folder, read_model_config(folder / CONFIG_NAME))
    try:
        asked = {"prompt": "red heart", "seed": 7}
        answer = service.submit(asked, accept="image/png").answer.result(120)
    finally:
        service.close()
    if answer.status != 200:
        sys.exit(f"status {answer.status}: {answer.body[:500]!r}")
    picture.write_bytes(answer.body)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
