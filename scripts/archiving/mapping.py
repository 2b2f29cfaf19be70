"""Files read through windows of mapped memory: on the way to a hash no byte is copied.

Reading into a buffer costs as much time in the kernel as the hash itself. Should someone cut a file
short while it is mapped, the kernel ends the process, which leaves nothing visible behind.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

WINDOW = 32 << 20
"""Bytes mapped at a time: all that counts as this process's memory. A multiple of any page size."""

AHEAD = 2 * WINDOW
"""Bytes that the disk reads while a window is hashed."""

# Linux can map the pages in one go rather than at each first touch.
_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


@contextmanager
def window(file: IO[bytes], offset: int, length: int) -> Iterator[mmap.mmap]:
    """`length` bytes of an open file; `offset` is a multiple of WINDOW."""
    view = mmap.mmap(file.fileno(), length, flags=_FLAGS, prot=mmap.PROT_READ, offset=offset)
    try:
        yield view
    finally:
        # After an error another thread may still read from it: then it goes when that one is done.
        with suppress(BufferError):
            view.close()


def windows(size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of each window of a file of `size` bytes."""
    for offset in range(0, size, WINDOW):
        yield offset, min(WINDOW, size - offset)
