"""Pictures that requests bring: what they would become is known before they are unpacked."""

from __future__ import annotations

import base64
import io
import resource
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from diffusion_core.source_image import parse_source, plain_image, source_field
from diffusion_core.validation import invalid_field


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *others: bytes, pixels: bytes = b"") -> bytes:
    """A PNG whose header promises width × height pixels, whatever it holds."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(others) + data


PACKED_TEXT = chunk(b"zTXt", b"note\0\0" + zlib.compress(b" " * (1 << 23), 9))
"""Eight megabytes of spaces in as many kilobytes."""


def refused(data: bytes, max_pixels: int = 1 << 26, max_bytes: int = 1 << 20) -> Any:
    field = source_field(max_pixels, max_bytes)
    model: type[BaseModel] = create_model(
        "Request",
        __config__=ConfigDict(arbitrary_types_allowed=True),
        control_image=(field, ...),
    )
    with pytest.raises(ValidationError) as raised:
        model.model_validate({"control_image": base64.b64encode(data).decode()}, strict=True)
    return invalid_field(raised.value)


@pytest.mark.parametrize(
    ("data", "words", "bound"),
    [
        (png(0, 0), "must be a PNG, JPEG or WebP file", None),
        (png(0, 7), "", None),
        (png(20_000, 20_000), "at most 67108864 pixels", {"maximum": 1 << 26}),
        (png(8193, 8192), "at most 67108864 pixels", {"maximum": 1 << 26}),
        (png(1 << 31, 1 << 31), "", None),
        (png(8, 8) + bytes(1 << 20), "at most 1048576 bytes", {"maximum": 1 << 20}),
        (png(8, 8, PACKED_TEXT), "packed text", None),
        (b"GIF89a" + bytes(100), "must be a PNG, JPEG or WebP file", None),
        (b"", "must be a PNG, JPEG or WebP file", None),
    ],
    ids=[
        "no size",
        "no width",
        "20,000 a side",
        "a column too many",
        "more than a header may hold",
        "bytes",
        "packed text",
        "another format",
        "nothing",
    ],
)
def test_bad_files_are_refused_with_the_field_and_the_bound(
    data: bytes, words: str, bound: dict[str, int] | None
) -> None:
    fault = refused(data)
    assert fault.field == "control_image"
    assert fault.message.startswith("control_image: ")
    assert words in fault.message
    assert bound is None or fault.bound == bound


def test_a_picture_that_unpacks_to_more_than_its_header_says_takes_no_memory_for_it() -> None:
    unpacked = 1 << 27
    many = zlib.compress(bytes(unpacked))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = parse_source(png(16, 16, pixels=many))
    assert source.decode().size == (16, 16)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # KiB.
    assert grown << 10 < unpacked / 4


def test_a_picture_that_breaks_off_is_told_when_it_is_decoded() -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    source = parse_source(file.getvalue()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        source.decode()


@pytest.mark.parametrize(("mode", "white"), [("RGB", (255, 255, 255)), ("L", 255)])
def test_a_plain_image_is_white_all_over(mode: str, white: Any) -> None:
    image = parse_source(plain_image(5, 3, mode).data).decode()
    assert image.size == (5, 3)
    assert image.getcolors() == [(15, white)]
