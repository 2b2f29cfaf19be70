"""Run by process.py in a process of its own: a variant's archive, loaded and asked as a worker is.

Orders come as lines of JSON on stdin, answers go as lines of JSON to what was stdout.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any, TextIO

from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config


def main() -> None:
    """Answers orders until stdin ends."""
    answers = _own_stdout()
    service: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "load":
            began = time.perf_counter()
            service = _load(Path(order["folder"]))
            identity = service.record.identity
            answer: dict[str, Any] = {"seconds": time.perf_counter() - began, "identity": identity}
        else:
            answer = _draw(service, order["requests"], keep=order["keep"])
        print(json.dumps({**answer, "peak_bytes": _peak(service)}), file=answers, flush=True)
    if service is not None:
        service.close()


def _own_stdout() -> TextIO:
    """Stdout for answers alone: what libraries print goes to stderr from here on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _load(folder: Path) -> Any:
    """The archive's service, loaded on a thread that is gone, as in a worker: see open_service."""
    from diffusion_engine.memory import keep_freed_memory
    from diffusion_engine.service import DiffusionService

    config = read_model_config(folder / CONFIG_NAME)
    keep_freed_memory()
    with ThreadPoolExecutor(1, "loading") as loading:
        service = loading.submit(DiffusionService, folder, config).result()
    # Compiled models are compiled then. Whoever asked has a limit of its own.
    service.draw_once(inf)
    return service


def _draw(service: Any, requests: list[dict[str, Any]], *, keep: bool) -> dict[str, Any]:
    """Draws requests together: seconds in all, and of each its denoising and its steps."""
    began = time.perf_counter()
    pending = [service.submit(request, accept="image/png") for request in requests]
    answers = [one.answer.result() for one in pending]
    seconds = time.perf_counter() - began
    for answer in answers:
        if answer.status != 200:
            problem = json.loads(answer.body)
            raise SystemExit(f"DrawingError: {problem.get('detail') or problem}")
    return {
        "seconds": seconds,
        "denoising": [one.ticket.timings["denoise"] for one in pending],
        "steps": [one.ticket.steps_done for one in pending],
        "pictures": [base64.b64encode(one.body).decode() for one in answers] if keep else [],
    }


def _peak(service: Any) -> int:
    """Bytes that the process has taken at most: of the GPU where it has one, else resident."""
    from diffusion_engine.memory import most_taken

    if service.device.type == "cuda":
        return most_taken(service.device)
    # getrusage's figure starts at what the parent held as it started this process; this one not.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    main()
