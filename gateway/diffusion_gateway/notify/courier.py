"""Courier: posts signed messages to addresses that clients named (Standard Webhooks)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpcore2
from standardwebhooks import Webhook

from diffusion_core.errors import ConfigError
from diffusion_gateway.notify.public_network import ForbiddenAddressError, PublicNetwork
from diffusion_gateway.settings import GatewaySettings

_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)

_PER_HOST = 4
_PER_TENANT = 64
_AT_ONCE = 512

_WAITING_PER_HOST = 200
_WAITING_PER_TENANT = 500

_BODY_BYTES = 1 << 16
_BODY_S = 1.0

_LONGEST_WAIT_S = 3600.0
"""A receiver may ask to be left alone for so long."""


@dataclass(frozen=True, slots=True)
class Message:
    """A body for an address; `id` is the same for each attempt, so that a receiver knows it."""

    id: str
    tenant: str
    url: str
    body: bytes

    @property
    def host(self) -> str:
        """Where it goes, port included."""
        return urlsplit(self.url).netloc.lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt.

    Attributes:
        delivered: the receiver has it.
        final: no other attempt makes sense.
        retry_after: seconds for which the receiver asks to be left alone.
        reason: why it was not delivered, for the log.
    """

    delivered: bool = False
    final: bool = False
    retry_after: float = 0.0
    reason: str = "it cannot be reached"


class Courier:
    """Posts messages, so many at a time to a host, for a tenant and in all.

    Redirects are not followed, proxies of the environment not used, answers not looked at.

    Args:
        settings: the gateway's.
        network: what opens connections; public addresses only, unless the settings say otherwise.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        network: PublicNetwork | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout_s = settings.webhook_timeout_s
        self._network = network or PublicNetwork(anywhere=settings.webhook_private_addresses)
        self._signer = _signer(settings.webhook_secret)
        self._hosts = Places(_PER_HOST)
        self._tenants = Places(_PER_TENANT)
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._of_tenant = Counter[str]()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=_AT_ONCE,
            max_keepalive_connections=32,
            keepalive_expiry=5.0,
            network_backend=self._network,
        )

    async def close(self) -> None:
        """Ends connections."""
        await self._pool.aclose()
        self._network.close()

    def busy(self, message: Message) -> bool:
        """Whether others wait for a place at its host, or its tenant has too many on the way."""
        return self._hosts.waiting(message.host) > 0 or self._tenants.waiting(message.tenant) > 0

    def crowded(self, message: Message) -> bool:
        """Whether so many of its host or tenant wait that others would be kept from waiting."""
        return (
            self._hosts.waiting(message.host) >= _WAITING_PER_HOST
            or self._of_tenant[message.tenant] >= _WAITING_PER_TENANT
        )

    @asynccontextmanager
    async def place(self, message: Message) -> AsyncIterator[None]:
        """Waits for the message's turn; hold it while posting.

        The host's place comes first: whoever waits for a slow host must hold nothing that others
        need.
        """
        self._of_tenant[message.tenant] += 1
        try:
            async with (
                self._hosts.one(message.host),
                self._tenants.one(message.tenant),
                self._all,
            ):
                yield
        finally:
            self._of_tenant[message.tenant] -= 1
            if not self._of_tenant[message.tenant]:
                del self._of_tenant[message.tenant]

    async def post(self, message: Message) -> Answer:
        """One attempt, within the settings' timeout from name to status."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(message)
        except ForbiddenAddressError:
            return Answer(final=True, reason="its host is not on the public Internet")
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
            return Answer()
        except (TimeoutError, OSError, ssl.SSLError):
            return Answer()

    async def _post(self, message: Message) -> Answer:
        # The pool's own timeouts end what the sum of them above cannot: a connection in a thread.
        each = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        async with self._pool.stream(
            "POST",
            message.url,
            headers=self._headers(message),
            content=message.body,
            extensions={"timeout": each},
        ) as response:
            await _read_out(response)
            return Answer(
                delivered=200 <= response.status < 300,
                final=response.status == 410,
                retry_after=_retry_after(dict(response.headers)),
                reason=f"it answered {response.status}",
            )

    def _headers(self, message: Message) -> dict[str | bytes, str | bytes]:
        now = datetime.now(UTC)
        headers: dict[str | bytes, str | bytes] = {
            "Host": urlsplit(message.url).netloc,
            "Content-Type": "application/json",
            "User-Agent": "torchserve-diffusers",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        if self._signer is not None:
            signature = self._signer.sign(message.id, now, message.body.decode())
            headers["webhook-signature"] = signature
        return headers


class Places:
    """So many at a time for each key; keys that nobody uses are forgotten."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._users = Counter[str]()

    def waiting(self, key: str) -> int:
        """How many wait for a place."""
        return max(0, self._users[key] - self._each)

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Waits for a place and holds it."""
        turn = self._turns.setdefault(key, asyncio.Semaphore(self._each))
        self._users[key] += 1
        try:
            async with turn:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._turns[key]


def _signer(secret: str | None) -> Webhook | None:
    if secret is None:
        return None
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _SECRET_BYTES:
        raise ConfigError(
            "webhook_secret: must be whsec_ and the base64 of 24 to 64 random bytes",
            field="webhook_secret",
        )
    return Webhook(key)


async def _read_out(response: httpcore2.Response) -> None:
    """Takes a short body, so that its connection can be used again; a long one is left unread."""
    size = 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in response.aiter_stream():
                size += len(part)
                if size > _BODY_BYTES:
                    return
    except (TimeoutError, httpcore2.NetworkError, httpcore2.ProtocolError):
        # Its status has come, and that is the answer.
        return


def _retry_after(headers: dict[bytes, bytes]) -> float:
    for name, value in headers.items():
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 6:
            return min(float(value), _LONGEST_WAIT_S)
    return 0.0
