"""Tries every text-to-image pipeline class of the installed diffusers, and writes the table."""

from __future__ import annotations

import argparse
import os
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "pipelines.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="pipeline classes; all of them unless named")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write into")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"

    import torch
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

    from diffusion_engine.loading import silence_libraries
    from surveying.page import written_into
    from surveying.trial import try_pipeline

    silence_libraries()
    # Models this small have nothing to share between threads.
    torch.set_num_threads(1)
    names = options.names or [one.__name__ for one in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()]
    trials = []
    for name in names:
        trials.append(try_pipeline(name))
        print(trials[-1], flush=True)
    if not options.names:
        page = options.page.read_text(encoding="utf-8")
        versions = f"diffusers {version('diffusers')}, torch {version('torch')}"
        options.page.write_text(written_into(page, versions, trials), encoding="utf-8")


if __name__ == "__main__":
    main()
