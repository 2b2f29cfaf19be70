"""The model store: which archives it holds."""

from __future__ import annotations

from pathlib import Path

from serving.errors import Trouble

_SUFFIXES = (".mar", ".tar.gz", "")
"""Of the formats: zip-store and default, tgz, no-archive."""


def archive_of(store: Path, name: str) -> str | None:
    """The archive of the model `name`, whatever its format; None where there is none."""
    found = (f"{name}{suffix}" for suffix in _SUFFIXES)
    return next((archive for archive in found if (store / archive).exists()), None)


def require_archive(store: Path, archive: str) -> None:
    """`Trouble` listing what the model store holds where `archive` is not in it."""
    if not archive or not (store / archive).exists():
        raise Trouble(f"{store} holds no archive {archive!r} (it holds: {_held(store)}).")


def require_archive_of(store: Path, name: str, otherwise: str = "", options: str = "") -> str:
    """The archive of the model `name`; `Trouble` with what there is instead if there is none.

    Args:
        otherwise: what else there is not.
        options: for building one.
    """
    found = archive_of(store, name)
    if found is None:
        raise Trouble(
            f"{store.name} holds no archive of {name}{otherwise} (it holds: {_held(store)}). Build "
            f"one: make archive MODEL=<folder> NAME={name}{options}"
        )
    return found


def _held(store: Path) -> str:
    paths = sorted(store.iterdir()) if store.is_dir() else []
    held = [
        path.name
        for path in paths
        if path.name[0] != "." and (path.is_dir() or path.name.endswith(_SUFFIXES[:2]))
    ]
    return ", ".join(held) or "nothing"
