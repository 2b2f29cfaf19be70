"""Writes config/locks anew: the versions and hashes that images install.

python scripts/lock.py
"""

from __future__ import annotations

from rich.progress import track

from releasing import locks
from serving.cli import console, program, run

app = program("Locks what images install, by version and hash.")


@app.command()
def main() -> None:
    """Resolves each image's requirements; takes a few minutes of asking the package index."""
    for image in track(locks.images(), "locking", console=console):
        locks.write(image)
        console.print(f"{image}: {len(locks.pins(image))} packages", highlight=False)


if __name__ == "__main__":
    run(app)
