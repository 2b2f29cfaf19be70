"""Progress bars for long work."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from archiving.hashes import Progress as Done
from archiving.watcher import Watcher


class Bars(Watcher):
    """One line for each phase; silent where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._current: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def phase(self, text: str, total: int = 0) -> Done:
        """Ends the bar before and starts one for `text`."""
        if self._current is not None:
            self._bars.remove_task(self._current)
        task = self._current = self._bars.add_task(text, total=total or None)
        return lambda count: self._bars.advance(task, count)
