"""The environment TorchServe runs in: this interpreter's libraries, and not this project.

An archive must work on a stock TorchServe. A development install would put the repository's own
code within reach of the workers and hide a file that the archive lacks, so workers get an
interpreter of their own that sees the installed libraries as a plain folder: the hooks of editable
installs, which live in .pth files, do not run there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from serving.java import java_home

# Would let something other than the archive decide what a worker imports or where it listens.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "TS_CONFIG_FILE", "VIRTUAL_ENV")


def bare_interpreter(folder: Path) -> Path:
    """A Python in `folder` with this one's libraries and none of its editable installs."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        subprocess.run([python, "-c", ""], check=True)
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(own) / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return python


def server_environment(temporary: Path, logs: Path) -> dict[str, str]:
    """Environment variables of TorchServe and its workers: a private temp folder and log folder."""
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    environment |= {
        "JAVA_HOME": str(java_home()),
        # The launcher keeps its pid file in TMPDIR, Java its unpacked archives and sockets in TEMP.
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "LOG_LOCATION": str(logs),
        "METRICS_LOCATION": str(logs),
        # A spinner of a library would break up the metric lines that workers write to stdout.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return environment
