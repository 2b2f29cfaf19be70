"""Image files from pixels, with the settings that made them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_core.limits import OutputFormat

# zlib's fastest level: a 1024² picture takes less than half of the default level's time for a
# file some percent larger, and a client that wants small files asks for WebP.
_PNG_LEVEL = 1

_PREVIEW_QUALITY = 80

# A thread that wakes up for it, and takes a core from the model's threads, costs more than the file
# of so small a picture itself: `python -m benchmarks --only previews`.
_QUICK_PIXELS = 64 * 64

SETTINGS_KEY = "generation"
"""The PNG text chunk that holds the settings, as JSON."""


def to_image(pixels: torch.Tensor) -> Image.Image:
    """An image of pixels [3, H, W] in [0, 1], rounded as diffusers' `numpy_to_pil` does."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray((array * 255).round().astype("uint8"))


def preview_file(pixels: NDArray[np.uint8], width: int, height: int) -> bytes:
    """A JPEG of a rough picture [h, w, 3], as large as the picture that it previews."""
    if pixels.shape[:2] != (height, width):
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    # A quarter of what Pillow takes for a small picture, at every step that is shown.
    file: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=_PREVIEW_QUALITY, colorsubsampling="420"
    )
    return file


def is_quick(width: int, height: int) -> bool:
    """Whether a preview of this size is written sooner than another thread is told to."""
    return width * height <= _QUICK_PIXELS


def encode(
    pixels: torch.Tensor, output_format: OutputFormat, quality: int, settings: Mapping[str, Any]
) -> bytes:
    """An image file of pixels [3, H, W] in [0, 1]; PNGs carry `settings`."""
    image, file = to_image(pixels), io.BytesIO()
    if output_format == "png":
        info = PngInfo()
        info.add_itxt(SETTINGS_KEY, json.dumps(settings, ensure_ascii=False))
        image.save(file, "PNG", compress_level=_PNG_LEVEL, pnginfo=info)
    elif output_format == "jpeg":
        image.save(file, "JPEG", quality=quality)
    else:
        image.save(file, "WEBP", quality=quality)
    return file.getvalue()
