"""What all levels of tests share: quiet libraries, one thread, tiny pipelines."""

from __future__ import annotations

import atexit
import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Nothing that a test measures may outlive its run.
_profiles = tempfile.TemporaryDirectory(prefix="profiles-")
atexit.register(_profiles.cleanup)
os.environ["DIFFUSION_PROFILE_DIR"] = _profiles.name

pytest_plugins = ["sameness"]
