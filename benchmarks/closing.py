"""What every system has in common: it is closed when its block ends."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any


class Closing(AbstractContextManager[Any]):
    """Closed when its `with` block ends, however it ends."""

    @abstractmethod
    def close(self) -> None:
        """Ends its processes and threads."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
