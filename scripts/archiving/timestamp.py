"""The one time that archives carry, so that the same input gives the same bytes."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from diffusion_core.errors import ConfigError

# The earliest time that a zip file can hold.
_ZIP_EPOCH = 315532800


def timestamp() -> datetime:
    """1980-01-01, or SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/)."""
    text = os.environ.get("SOURCE_DATE_EPOCH", str(_ZIP_EPOCH))
    if not text.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH: must be whole seconds since 1970, not {text!r}")
    return datetime.fromtimestamp(max(int(text), _ZIP_EPOCH), UTC)
