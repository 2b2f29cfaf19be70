"""A real redis-server on a free port, that may be killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.errors import Trouble
from serving.ports import free_port


class RedisServer:
    """redis-server in a folder; every write is on disk before its answer unless told otherwise."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the gateway calls it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> int | None:
        """Its process id while it runs."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it; returns once it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "always"]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *self._options], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ask("PING")
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    words = (self.folder / "redis.log").read_text(errors="replace")[-500:]
                    raise Trouble(f"redis-server does not answer: {words}") from None
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        never = Retry(NoBackoff(), 0)
        with redis.Redis(port=self.port, decode_responses=True, retry=never) as client:
            return client.execute_command(*command)

    def clear(self) -> None:
        """Forgets everything."""
        self.ask("FLUSHALL")
        self.ask("CONFIG", "SET", "maxmemory", "0")
