"""Freed memory stays with the process: a denoiser call pays no page faults for it again."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Tensors on a thread that is not the first, as the engine's is; the faults of the later rounds.
PROGRAM = """
import resource, sys, threading
import torch
from diffusion_engine.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def work():
    for round in range(6):
        if round == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        # 105 MB alive at once: more than the 64 MB of one heap of a thread's arena.
        tensors = [torch.empty(number << 17).zero_() for number in range(1, 21)]
        del tensors
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's")
def test_freed_tensors_are_reused_without_page_faults() -> None:
    kept, given_back = faults("kept"), faults("default")
    assert kept < 100
    assert given_back > 1000
