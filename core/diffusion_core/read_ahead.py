"""Has the system read a file into its page cache before anybody waits for it."""

from __future__ import annotations

import os

_STEP = 1 << 17
"""Linux cuts a longer advice to what the disk reads in one go, in silence."""


def read_ahead(descriptor: int, offset: int, length: int) -> None:
    """Starts reading `length` bytes from `offset` on; does nothing where systems take no advice."""
    if not hasattr(os, "posix_fadvise"):
        return
    for start in range(offset, offset + length, _STEP):
        os.posix_fadvise(descriptor, start, _STEP, os.POSIX_FADV_WILLNEED)
