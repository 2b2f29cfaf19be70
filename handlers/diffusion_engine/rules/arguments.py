"""A call's arguments laid flat: nested mappings become paths, and paths mappings again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
Leaves = Mapping[Path, Any]


def flatten(arguments: Mapping[str, Any]) -> dict[Path, Any]:
    """Arguments by path, in an order that does not depend on how they were passed."""
    return dict(_leaves(arguments))


def nest(leaves: Leaves) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for path, value in leaves.items():
        place = nested
        for name in path[:-1]:
            place = place.setdefault(name, {})
        # Models write into mappings they are given, so an empty one is never handed on.
        place[path[-1]] = {} if isinstance(value, Mapping) else value
    return nested


def _leaves(arguments: Mapping[str, Any], prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value
