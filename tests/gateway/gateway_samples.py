"""Jobs, pictures and settings for tests of the gateway."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_gateway.job import Job, new_id
from diffusion_gateway.settings import GatewaySettings


def settings(folder: Path | None = None, **changes: Any) -> GatewaySettings:
    """Settings with results in `folder`, or in memory."""
    results = "memory:" if folder is None else f"file:{folder}"
    return GatewaySettings(**{"results_url": results, **changes})


def job(**changes: Any) -> Job:
    """A waiting job."""
    values: dict[str, Any] = {
        "id": new_id(),
        "tenant": "local",
        "model": "emoji",
        "fields": {"prompt": "a red fox", "seed": 7},
        "steps": 4,
        "work": 4.0 * 64 * 64,
        "submitted_at": time.time(),
    }
    return Job(**{**values, **changes})


def picture(
    width: int = 64, height: int = 48, form: str = "PNG", colour: Any = (200, 30, 60)
) -> bytes:
    """An image file of one colour; four channels make it transparent."""
    file = io.BytesIO()
    mode = "RGBA" if len(colour) == 4 else "RGB"
    Image.new(mode, (width, height), colour).save(file, form)
    return file.getvalue()
