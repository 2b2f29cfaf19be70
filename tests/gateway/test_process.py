"""The gateway's socket."""

from __future__ import annotations

import asyncio
import socket

from diffusion_gateway.process import listen
from diffusion_gateway.settings import GatewaySettings


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    listening = listen(GatewaySettings(port=0))
    accepted: list[int] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(answer, sock=listening):
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        await reader.read()
        writer.close()
    assert len(accepted) == 1
    assert accepted[0]
