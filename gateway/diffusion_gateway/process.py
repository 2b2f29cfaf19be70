"""The gateway as a process: its socket, its logs, its end."""

from __future__ import annotations

import asyncio
import logging.config
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from diffusion_core.errors import ConfigError
from diffusion_gateway.api.app import create_app
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.settings import GatewaySettings, netloc

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_CLOSING_S = 3.0
"""Of `drain_s`, kept to end connections in; a third of it where there is little."""
_WATCHER_MAY_SAY = 1 << 16
"""Bytes of a message from a WebSocket's client."""
_KEEP_ALIVE_S = 75
"""Above the 60 s that load balancers keep idle connections: they must be the ones to close them."""

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {
        "diffusion_gateway": {"level": "INFO"},
        # At INFO it writes WebSockets' addresses, tickets included.
        "uvicorn.error": {"level": "WARNING"},
    },
}


def run(settings: GatewaySettings, pid_file: Path) -> None:
    """Serves until a signal ends it; `ConfigError` for what keeps it from starting."""
    listening = listen(settings)
    logging.config.dictConfig(LOGGING)
    try:
        asyncio.run(_serve(Gateway.of(settings, pid_file.parent), listening, pid_file))
    finally:
        listening.close()


async def _serve(gateway: Gateway, listening: socket.socket, pid_file: Path) -> None:
    # Opened here and not by the framework, which would make a stack trace of a wrong setting.
    async with gateway:
        pid_file.parent.mkdir(parents=True, exist_ok=True)
        pid_file.write_text(str(os.getpid()))
        try:
            await _Server(gateway).serve([listening])
        finally:
            pid_file.unlink(missing_ok=True)


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket that the gateway answers at; `ConfigError` where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named: only then asyncio turns Nagle's algorithm off for what it accepts,
    # and an answer in two pieces does not wait 40 ms until its first one is acknowledged.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"{netloc(settings.host, settings.port)} cannot be listened at: {error.strerror}; name "
            "another with --port",
            field="port",
        ) from None
    listening.listen(_BACKLOG)
    return listening


class _Server(uvicorn.Server):
    """uvicorn, with a drain before its end."""

    def __init__(self, gateway: Gateway) -> None:
        drain_s = gateway.settings.drain_s
        self._closing_s = min(_CLOSING_S, drain_s / 3)
        super().__init__(
            uvicorn.Config(
                create_app(gateway),
                lifespan="off",
                log_config=None,
                # The application writes its own, without query strings.
                access_log=False,
                server_header=False,
                ws_per_message_deflate=False,
                # Watchers listen; what they may say is a pong.
                ws_max_size=_WATCHER_MAY_SAY,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(self._closing_s)),
            )
        )
        self._gateway = gateway
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            logger.info("the gateway answers at http://%s", netloc(host, port))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal drains, the second one ends at once."""
        if self._ending is None and not self.should_exit:
            logger.info("%s: draining", signal.Signals(sig).name)
            self._loop.call_soon_threadsafe(self._begin_to_end)
        else:
            self.force_exit = self.should_exit = True

    def _begin_to_end(self) -> None:
        self._ending = self._ending or asyncio.create_task(self._end())

    async def _end(self) -> None:
        try:
            await self._gateway.drain(self._gateway.settings.drain_s - self._closing_s)
        finally:
            # Whoever follows a job is sent elsewhere, so that connections end.
            self._gateway.watchers.close()
            self.should_exit = True
