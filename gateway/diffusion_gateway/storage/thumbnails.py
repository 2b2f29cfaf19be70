"""Thumbnails, and what an image file says of itself."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from diffusion_core.source_image import parse_source

CONTENT_TYPE = "image/jpeg"
_QUALITY = 80
_WHITE = (255, 255, 255, 255)


def make_thumbnail(data: bytes, pixels: int) -> bytes:
    """A JPEG of the image, its longer side at most `pixels`; takes a CPU for milliseconds.

    Raises `ValueError` for what is no image, is damaged, or is too large to be decoded.
    """
    source = parse_source(data)
    with warnings.catch_warnings():
        # Its own bound on pixels was kept by the line above.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = source.decode()
    # A gap of 1: whole factors first, by averaging, which takes a third of the time.
    image.thumbnail((pixels, pixels), Image.Resampling.BICUBIC, reducing_gap=1.0)
    file = io.BytesIO()
    _opaque(image).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """The picture as RGB: JPEG knows no transparency, so white shows through."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
