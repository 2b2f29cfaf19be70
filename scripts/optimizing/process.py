"""A variant in a process of its own: what it does to itself is its own row in the table."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from diffusion_core.errors import ServingError

_DRAWER = Path(__file__).with_name("drawer.py")

# The last line of a traceback, and what ends a process with a word.
_REASON = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt))\b:?\s*(.*)", re.MULTILINE)


class VariantError(ServingError):
    """A variant did not load, did not draw, or did not answer in time."""

    code = "variant_failed"


@dataclass(frozen=True)
class Drawn:
    """What a few requests that were asked together took.

    Attributes:
        seconds: from the first request to the last picture's file.
        step_seconds: seconds of denoising of each request over its steps.
        peak_bytes: the most memory that the process has held so far.
    """

    seconds: float
    step_seconds: tuple[float, ...]
    peak_bytes: int
    pictures: tuple[Image.Image, ...] = ()


class Drawer:
    """A loaded archive, asked for pictures. A context manager: the process ends with it.

    Args:
        folder: an unpacked archive.
        limit_s: seconds that loading, and any drawing, may take.
    """

    def __init__(self, folder: Path, limit_s: float) -> None:
        self._limit = limit_s
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_DRAWER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.facts = self._ask({"do": "load", "folder": str(folder)})
        except BaseException:
            self.close()
            raise

    @property
    def load_seconds(self) -> float:
        """Seconds from a new process to a loaded pipeline, imports among them."""
        return float(self.facts["seconds"])

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def draw(self, requests: Sequence[Mapping[str, Any]], *, keep: bool = False) -> Drawn:
        """Asks for pictures together; `keep`: and returns them. Raises `VariantError`."""
        answer = self._ask({"do": "draw", "requests": list(requests), "keep": keep})
        if not all(answer["steps"]):
            raise VariantError("this pipeline tells of no steps: it has no callback for them")
        took = zip(answer["denoising"], answer["steps"], strict=True)
        return Drawn(
            seconds=answer["seconds"],
            step_seconds=tuple(seconds / steps for seconds, steps in took),
            peak_bytes=answer["peak_bytes"],
            pictures=tuple(_picture(one) for one in answer["pictures"]),
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Drawer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._limit, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            if late.is_set():
                raise VariantError(f"took more than {self._limit:g} s")
            raise VariantError(self._reason(process.wait()))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _reason(self, code: int) -> str:
        """The last exception that the process told of, or how it ended."""
        self._errors.seek(0)
        found = _REASON.findall(self._errors.read())
        if code < 0 or not found:
            return f"the process ended by signal {-code}" if code < 0 else f"ended with {code}"
        kind, words = found[-1]
        return str(words or kind)


def _picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
