"""What machines cost while they answer, used or not; and how budgets stand."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from diffusion_core.errors import ServingError
from diffusion_gateway.costs.accounts import Accounts
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.stores.usage import slot_of
from diffusion_gateway.upstream.endpoints import Endpoint

logger = logging.getLogger(__name__)

TURN_S = 15.0
"""Machines are charged for so long at a time; the gateways of a store agree on who does it."""

_FORGET_EVERY_S = 3600.0


class Holding:
    """The loop that charges machines' time to the store.

    Args:
        clock: seconds since 1970. If it jumps back, what was charged is not charged again.
        host: tells this machine's name, or its pod's.
    """

    def __init__(
        self,
        accounts: Accounts,
        store: JobStore,
        endpoints: Callable[[], Iterable[Endpoint]],
        lifetime_s: float,
        clock: Callable[[], float] = time.time,
        host: Callable[[], str] = socket.gethostname,
    ) -> None:
        self._accounts = accounts
        self._store = store
        self._endpoints = endpoints
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._host = host
        self._forgot_at = 0.0

    async def run(self) -> None:
        """Charges each turn until it is cancelled."""
        while True:
            try:
                await self.turn()
            except ServingError as error:
                logger.warning("machines' time is not charged: %s", error.message)
            await asyncio.sleep(TURN_S / 3)

    async def turn(self) -> None:
        """Charges the turn under way for each endpoint that answers, unless somebody has."""
        now = self._clock()
        number = int(now // TURN_S)
        for endpoint in self._endpoints():
            if not endpoint.alive:
                continue
            quote = self._accounts.tariff.machine(endpoint.settings)
            workers = sum(one.known.workers for one in endpoint.registrations.values())
            where = _everywhere(endpoint.settings.inference, self._host())
            entry = f"held/{where}/{number}"
            await self._accounts.hold(quote, TURN_S, workers, entry)
        await self._accounts.show_budgets()
        if now - self._forgot_at > _FORGET_EVERY_S:
            self._forgot_at = now
            await self._store.forget_usage(slot_of(now - self._lifetime_s))


def _everywhere(address: str, host: str) -> str:
    """An endpoint's address as all gateways of a store would have to write it: a loopback address
    is another machine on each host, and each pod."""
    return f"{host}/{address}" if _is_loopback(urlsplit(address).hostname or "") else address


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
