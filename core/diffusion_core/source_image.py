"""An image that a request brings: checked by its header before anybody decodes it."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

_FORMATS = ("PNG", "JPEG", "WEBP")

MAX_SOURCE_PIXELS = 1 << 26
"""Pixels beyond which a source is refused unread: 67 million, 8192², some 200 MB once decoded."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A PNG, JPEG or WebP file; width and height in pixels, from its header."""

    data: bytes
    width: int
    height: int

    def __repr__(self) -> str:
        return f"SourceImage({self.width}x{self.height}, {len(self.data)} bytes)"

    def decode(self) -> Image.Image:
        """The picture; `ValueError` where the file breaks off or is not what its header says."""
        try:
            image = Image.open(io.BytesIO(self.data), formats=_FORMATS)
            image.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError("the image file is damaged") from error
        return image


def parse_source(value: Any) -> SourceImage:
    """A source from base64 text (a data URL too) or from a file's bytes.

    Raises `ValueError` with a message fit for clients.
    """
    if isinstance(value, SourceImage):
        return value
    data = decode_base64(value)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images; the bound below refuses them.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
        raise ValueError("must be a PNG, JPEG or WebP file") from None
    if width * height > MAX_SOURCE_PIXELS:
        raise ValueError(f"must have at most {MAX_SOURCE_PIXELS} pixels")
    return SourceImage(data, width, height)


def decode_base64(value: Any) -> bytes:
    """Bytes as they are, or from base64 text or a data URL; else `ValueError`."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError("must be a file in base64")
    text = value
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None
