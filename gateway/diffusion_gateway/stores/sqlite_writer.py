"""One thread that writes: operations that wait share a transaction, and so its one fsync."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from diffusion_gateway.errors import StoreUnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_GROUP = 256
"""Operations of one transaction, at most."""


class Transaction:
    """What an operation gets: the connection, and a list of what to do once it is on disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.after: list[Callable[[], None]] = []
        """Run on the event loop after the commit, in order; dropped if there is none."""


@dataclass(slots=True)
class _Operation:
    run: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    after: list[Callable[[], None]] = field(default_factory=list)
    result: Any = None
    error: Exception | None = None


class GroupWriter:
    """Runs operations one after another, each in a savepoint, and commits them together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """The operation's result once it is on disk; if it raises, it has changed nothing."""
        return await self.post(operation)

    def post(self, operation: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """The same without waiting."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Operation(operation, future))
        return future

    async def close(self) -> None:
        """Ends the thread after what waits has been written."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        running = True
        while running:
            group: list[_Operation] = []
            operation = self._waiting.get()
            while operation is not None:
                group.append(operation)
                if len(group) == _GROUP or self._waiting.empty():
                    break
                operation = self._waiting.get()
            running = operation is not None
            if group:
                self._write(group)
                try:
                    self._loop.call_soon_threadsafe(_deliver, group)
                except RuntimeError:  # The loop was closed without closing the store.
                    return

    def _write(self, group: list[_Operation]) -> None:
        try:
            self._commit(group)
        except sqlite3.Error as error:
            self._roll_back()
            if len(group) == 1:
                logger.error("the job store could not write: %s", error)
                group[0].error = StoreUnavailableError(f"the job store cannot write: {error}")
                return
            # One that does not fit must not take the others with it.
            for operation in group:
                self._write([operation])

    def _commit(self, group: list[_Operation]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for operation in group:
            operation.error = None
            transaction = Transaction(self._connection)
            self._connection.execute("SAVEPOINT operation")
            try:
                operation.result = operation.run(transaction)
            except sqlite3.Error:
                raise
            except Exception as error:
                operation.error = error
                self._connection.execute("ROLLBACK TO operation")
                transaction.after.clear()
            self._connection.execute("RELEASE operation")
            operation.after = transaction.after
        self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        # SQLite has rolled back itself after some errors, a full disk among them.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _deliver(group: list[_Operation]) -> None:
    for operation in group:
        for effect in operation.after if operation.error is None else ():
            effect()
        if operation.future.done():
            continue
        if operation.error is None:
            operation.future.set_result(operation.result)
        else:
            operation.future.set_exception(operation.error)
