"""The parts of a zip file, uncompressed and with fixed times, as far as archives need them.

Source: PKWARE's APPNOTE 6.3 (https://support.pkware.com/pkzip/appnote), sections 4.3 and 4.5.3 for
ZIP64. Python's zipfile can only append bytes that pass through Python; weights need not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime
from typing import IO

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END_64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<IIQI")

_PLAIN_VERSION = 20
_ZIP64_VERSION = 45
_ZIP64_FIELD = 1
_MADE_ON_UNIX = 3 << 8
_UTF8_NAMES = 1 << 11
_REGULAR_FILE = 0o100644 << 16
_FULL_16 = (1 << 16) - 1
_FULL_32 = (1 << 32) - 1


@dataclass(frozen=True)
class ZipEntry:
    """A stored entry: its name, size in bytes, CRC-32 and where its header starts."""

    name: str
    size: int
    crc: int
    offset: int

    def local_header(self, when: datetime) -> bytes:
        """What stands before the data; its length does not depend on the CRC."""
        name, extra = self.name.encode(), self._sizes_64()
        small = _FULL_32 if extra else self.size
        fields = (self._version(), _UTF8_NAMES, 0, *_dos(when), self.crc, small, small)
        return _LOCAL.pack(0x04034B50, *fields, len(name), len(extra)) + name + extra

    def central_header(self, when: datetime) -> bytes:
        """The entry in the table at the end."""
        name, sizes = self.name.encode(), self._sizes_64()
        far = self.offset >= _FULL_32
        content = sizes[4:] + (struct.pack("<Q", self.offset) if far else b"")
        extra = struct.pack("<HH", _ZIP64_FIELD, len(content)) + content if content else b""
        small = _FULL_32 if sizes else self.size
        version = _ZIP64_VERSION if extra else _PLAIN_VERSION
        head = (_MADE_ON_UNIX | version, version, _UTF8_NAMES, 0, *_dos(when), self.crc)
        tail = (0, 0, 0, _REGULAR_FILE, _FULL_32 if far else self.offset)
        lengths = (len(name), len(extra))
        return _CENTRAL.pack(0x02014B50, *head, small, small, *lengths, *tail) + name + extra

    def _sizes_64(self) -> bytes:
        """The ZIP64 field with both sizes, where they do not fit into 32 bits."""
        if self.size < _FULL_32:
            return b""
        return struct.pack("<HHQQ", _ZIP64_FIELD, 16, self.size, self.size)

    def _version(self) -> int:
        return _ZIP64_VERSION if self.size >= _FULL_32 else _PLAIN_VERSION


def write_directory(output: IO[bytes], entries: list[ZipEntry], when: datetime) -> None:
    """Ends a zip file: the table of its entries and the record that says where the table is."""
    start = output.tell()
    for entry in entries:
        output.write(entry.central_header(when))
    size = output.tell() - start
    if start >= _FULL_32 or size >= _FULL_32 or len(entries) >= _FULL_16:
        end_64 = output.tell()
        counts = (len(entries), len(entries), size, start)
        versions = (_MADE_ON_UNIX | _ZIP64_VERSION, _ZIP64_VERSION)
        output.write(_END_64.pack(0x06064B50, _END_64.size - 12, *versions, 0, 0, *counts))
        output.write(_LOCATOR_64.pack(0x07064B50, 0, end_64, 1))
    count = min(len(entries), _FULL_16)
    bounds = (min(size, _FULL_32), min(start, _FULL_32))
    output.write(_END.pack(0x06054B50, 0, 0, count, count, *bounds, 0))


def _dos(when: datetime) -> tuple[int, int]:
    """MS-DOS time and date: two-second steps, years since 1980."""
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    return time, (when.year - 1980) << 9 | when.month << 5 | when.day
