"""One check after another, and all that they find wrong."""

from __future__ import annotations

from collections.abc import Callable

from serving.cli import console, step
from serving.errors import Trouble


class Checks:
    """Runs checks and says at once what each finds; `found` is all of it.

    A check that cannot be made is something wrong, and does not keep the next from being made.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def check(self, sentence: str, faults: Callable[[], list[str]]) -> None:
        """Runs `faults`, which names each fault in a sentence or raises `Trouble`."""
        try:
            with step(sentence):
                wrong = faults()
        except Trouble as error:
            wrong = [str(error)]
        self.found.extend(wrong)
        console.print(f"[{'red' if wrong else 'green'}]{sentence}: {len(wrong) or 'nothing'} wrong")
        for fault in wrong:
            console.print(f"  {fault}", markup=False, highlight=False)
