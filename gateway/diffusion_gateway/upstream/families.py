"""Which registrations of an endpoint are one model: NAME, NAME-2 and NAME-3 of one archive."""

from __future__ import annotations

import time

from diffusion_gateway.upstream.endpoints import Registration

UPDATE_S = 3600.0
"""For so long a copy stays one whose archive has become another: an update changes one registration
after another, and each may have to load a large model."""


def note(one: Registration) -> None:
    """Notes that a registration, which its server lists, is a copy of the one it is named after."""
    first = _first(one)
    if first is None:
        return
    # Of an archive that has just come the old one's description is left, until it tells itself.
    told = one.described == one.known.processes
    if _same_archive(one, first) or (told and _same_identity(one, first)):
        one.copied = time.monotonic()


def family(one: Registration) -> str:
    """The model that a registration adds room to: NAME for NAME-2, if both are one archive, or were
    until an update began."""
    first = _first(one)
    if first is None:
        return one.name
    updated = one.copied is not None and time.monotonic() - one.copied < UPDATE_S
    copy = updated or _same_archive(one, first) or _same_identity(one, first)
    return first.name if copy else one.name


def _same_archive(one: Registration, first: Registration) -> bool:
    return first.known.archive == one.known.archive


def _same_identity(one: Registration, first: Registration) -> bool:
    described = first.description is not None and one.description is not None
    return described and first.runtime_identity == one.runtime_identity


def _first(one: Registration) -> Registration | None:
    """The registration NAME beside NAME-2."""
    stem, _, number = one.name.rpartition("-")
    if not number.isdecimal() or int(number) < 2:
        return None
    return one.endpoint.registrations.get(stem)
