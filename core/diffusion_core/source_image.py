"""An image that a request brings: checked by its header before anybody decodes it."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from PIL import Image, UnidentifiedImageError
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

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
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError("the image file is damaged") from error
        return image


def parse_source(
    value: Any, max_pixels: int = MAX_SOURCE_PIXELS, max_bytes: int | None = None
) -> SourceImage:
    """A source from base64 text (a data URL too) or from a file's bytes.

    Only the header is read: what a file would become is known before anything is unpacked.

    Raises `ValueError` with a message fit for clients.
    """
    if isinstance(value, SourceImage):
        return value
    data = decode_base64(value)
    if max_bytes is not None and len(data) > max_bytes:
        raise PydanticCustomError(
            "image_bytes", "must be a file of at most {le} bytes", {"le": max_bytes}
        )
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images; the bound below refuses them.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
    except Image.DecompressionBombError:
        # Pillow refuses by the header what has more than twice its own bound, which is above ours.
        raise _too_many(max_pixels) from None
    except (UnidentifiedImageError, OSError, SyntaxError):
        raise ValueError("must be a PNG, JPEG or WebP file") from None
    except ValueError:
        raise ValueError("must be a PNG, JPEG or WebP file without packed text") from None
    if width < 1 or height < 1:
        raise PydanticCustomError("image_pixels", "must have at least {ge} pixel", {"ge": 1})
    if width * height > max_pixels:
        raise _too_many(max_pixels)
    return SourceImage(data, width, height)


def _too_many(most: int) -> PydanticCustomError:
    return PydanticCustomError("image_pixels", "must have at most {le} pixels", {"le": most})


def source_field(max_pixels: int, max_bytes: int) -> Any:
    """The type of a request's field that holds a picture within these bounds."""
    checked = BeforeValidator(partial(parse_source, max_pixels=max_pixels, max_bytes=max_bytes))
    return Annotated[SourceImage, checked, WithJsonSchema({"type": "string", "format": "byte"})]


def plain_image(width: int, height: int, mode: str = "RGB") -> SourceImage:
    """A picture that is white all over, as a PNG file; as a mask, of mode "L": all of it."""
    file = io.BytesIO()
    Image.new(mode, (width, height), "white").save(file, "PNG")
    return SourceImage(file.getvalue(), width, height)


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
