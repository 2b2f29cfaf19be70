"""The embedded store's file: read on one thread, written on another."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.stores.sqlite_schema import connect, prepare
from diffusion_gateway.stores.sqlite_writer import GroupWriter, Transaction

T = TypeVar("T")


class SqliteFile:
    """The file and its two connections. For one event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: GroupWriter | None = None
        self._reader: ThreadPoolExecutor | None = None
        self._connections: list[sqlite3.Connection] = []

    async def open(self) -> None:
        """Opens the file; makes it and its folder if there is none. `ConfigError` if it cannot."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="sqlite-reader")
        try:
            await asyncio.get_running_loop().run_in_executor(self._reader, self._connect)
        except (OSError, sqlite3.Error) as error:
            self._disconnect()
            raise ConfigError(
                f"store_url: {self.path} cannot be opened: {error}", field="store_url"
            ) from None
        except BaseException:
            self._disconnect()
            raise
        self._writer = GroupWriter(self._connections[1])

    async def close(self) -> None:
        """Writes what waits, and closes the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
            await asyncio.to_thread(self._disconnect)

    def opened(self) -> GroupWriter:
        """The writer of an open file; `StoreUnavailableError`."""
        if self._writer is None:
            raise StoreUnavailableError("the job store is closed")
        return self._writer

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Runs an operation; returns when it is on disk."""
        return await self.opened().write(operation)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Runs a query on what is on disk."""
        self.opened()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._reader, query, self._connections[0]
            )
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"the job store cannot be read: {error}") from None

    def _connect(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            self._connections.append(connect(self.path))
        prepare(self._connections[1], self.path)

    def _disconnect(self) -> None:
        if self._reader is not None:
            self._reader.shutdown()
        # The writer's last: closing it brings the write-ahead log into the file.
        while self._connections:
            self._connections.pop(0).close()
