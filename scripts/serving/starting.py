"""Brings TorchServe up: as it was where it died, with the models that it served."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from serving.cli import ROOT, console, step
from serving.fleet import Fleet
from serving.server import Running, Server

LOCAL = ROOT / "config" / "config.properties"
STORE = ROOT / "model_store"

# Workers seal checkpoints with it; every worker of a pool must have the same.
_CHECKPOINT_KEY = "DIFFUSION_CHECKPOINT_KEY"


def bring_up(
    server: Server,
    *,
    profile: Path | None = None,
    model_store: Path | None = None,
    port: int | None = None,
) -> tuple[Running, list[str]]:
    """The running server, which is started if there is none, and the models it got back.

    What is None is as it was before the server died, else the local profile's. A server that was
    stopped on purpose starts with nothing.
    """
    running = server.find()
    if running is not None:
        return running, []
    os.environ.setdefault(_CHECKPOINT_KEY, _checkpoint_key(server.folder))
    died = server.died()
    if died is not None:
        profile = profile or (Path(died.profile) if died.profile else None)
        model_store = model_store or Path(died.model_store)
        port = port or died.port
    with step("starting TorchServe"):
        running = server.start(profile or LOCAL, model_store or STORE, port)
    with step("bringing its models back") as status:
        restored, lost = Fleet(server, status.update).restore()
    if restored:
        console.print(f"TorchServe had died; it serves again: {', '.join(restored)}")
    for sentence in lost:
        console.print(sentence, style="red", markup=False, highlight=False)
    return running, restored


def _checkpoint_key(run_folder: Path) -> str:
    """A secret of this machine's own, made once."""
    path = run_folder / "checkpoint.key"
    if not path.exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text().strip()
