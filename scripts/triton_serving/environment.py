"""Triton's server without a container: an environment of its own beside .venv."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from serving.errors import Trouble
from triton_serving.configs import TEMPLATES

REQUIREMENTS = TEMPLATES / "requirements.txt"

# The server's Python is an embedded one that reads no PYTHON* variables: it finds its libraries by
# the first python3 on PATH.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class Environment:
    """A virtual environment with the server, and with the libraries of .venv behind its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @property
    def server(self) -> Path:
        """The tritonserver program."""
        return self._wheel / "bin" / "tritonserver"

    def install(self) -> bool:
        """Makes it, unless it is there as the requirements are now; whether there was work."""
        stamp = self.folder / "installed"
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            return False
        if sys.platform != "linux":
            raise Trouble("The wheel with Triton's server is for Linux only.")
        subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], check=True)
        pip: list[str | Path] = [self.folder / "bin" / "python", "-m", "pip", "install"]
        pip += ["--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS]
        if subprocess.run(pip, check=False).returncode != 0:
            raise Trouble("pip could not install Triton's server; its own words are above.")
        libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (self._libraries / "libraries.pth").write_text("\n".join(libraries) + "\n")
        # Last: an install that was interrupted has no stamp and is done again.
        stamp.write_text(wanted)
        return True

    def backends(self, folder: Path) -> Path:
        """A folder of backends whose Python backend is of this Python's version."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self._wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise Trouble(f"Triton's wheel has no Python backend for Python {version}.")
        python = folder / "python"
        python.mkdir(parents=True, exist_ok=True)
        for source in (*(self._wheel / "backends" / "python").glob("*.*"), stub):
            link = python / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        return folder

    def variables(self) -> dict[str, str]:
        """The environment variables of the server and its workers."""
        variables = {name: value for name, value in os.environ.items() if name not in _DROPPED}
        variables["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{variables.get('PATH', '')}"
        # For libpython, where Python is not the system's own.
        paths = [str(sysconfig.get_config_var("LIBDIR")), variables.get("LD_LIBRARY_PATH", "")]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        variables["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        return variables

    @property
    def _libraries(self) -> Path:
        places = {"base": str(self.folder), "platbase": str(self.folder)}
        return Path(sysconfig.get_path("purelib", vars=places))

    @property
    def _wheel(self) -> Path:
        return self._libraries / "pytriton" / "tritonserver"
