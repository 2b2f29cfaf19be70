"""Connections to addresses that clients name: only to machines on the public Internet.

A name is resolved here, every address is checked, and the connection goes to a checked address: a
name that answers differently the next time (DNS rebinding) cannot lead elsewhere. Host header and
TLS keep the name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore2

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host, as text."""

_UNICAST = IPv6Network("2000::/3")

_EMBEDS_IPV4 = IPv6Network("64:ff9b::/96")
"""What a network without IPv4 calls machines that have nothing else (NAT64)."""

_NOT_PUBLIC: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("192.0.0.0/24"),  # of protocols, and a cloud's metadata
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv4Network("168.63.129.16/32"),  # a cloud's own services, from within it
    IPv6Network("2001::/23"),  # of protocols: tunnels among them
    IPv6Network("2002::/16"),  # 6to4, which leads to any IPv4 address
    IPv6Network("3fff::/20"),  # for documentation
)
"""What Python's `is_global` lets through, or did in some version."""


class ForbiddenAddressError(Exception):
    """The host has an address that is not a public one, or none at all."""


def is_public(text: str) -> bool:
    """Whether an address is one of the public Internet's; IPv4 within IPv6 is what it embeds."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _EMBEDS_IPV4:
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        elif address not in _UNICAST:
            return False
    within = any(
        address in network for network in _NOT_PUBLIC if network.version == address.version
    )
    return address.is_global and not address.is_multicast and not within


def may_be_public(host: str) -> bool:
    """Whether a URL's host may be one of the public Internet's: names are looked up later."""
    try:
        ip_address(host)
    except ValueError:
        return host != "localhost"
    return is_public(host)


class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Opens connections for an HTTP client.

    Args:
        anywhere: private addresses too.
        resolve: the system's resolver unless given.
        network: what connects to an address.
    """

    def __init__(
        self,
        *,
        anywhere: bool = False,
        resolve: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._anywhere = anywhere
        # Threads of their own: a name server that hangs must hold up nobody else.
        self._threads = ThreadPoolExecutor(8, "resolver")
        self._resolve = resolve or self._ask_system
        self._network = network or httpcore2.AnyIOBackend()

    def close(self) -> None:
        """Lets go of threads; those that still resolve end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first checked address that takes one, within `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._checked(host, port)
                return await self._connect(addresses, port, local_address, socket_options)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError):
            raise httpcore2.ConnectError("the host has no address") from None
        if not addresses:
            raise httpcore2.ConnectError("the host has no address")
        if not self._anywhere and not all(map(is_public, addresses)):
            raise ForbiddenAddressError
        return addresses

    async def _connect(
        self, addresses: Sequence[str], port: int, *options: Any
    ) -> httpcore2.AsyncNetworkStream:
        local_address, socket_options = options
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(
                    address, port, None, local_address, socket_options
                )
            except httpcore2.ConnectError:
                continue
        return await self._network.connect_tcp(
            addresses[-1], port, None, local_address, socket_options
        )

    async def _ask_system(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _addresses, host, port)


def _addresses(host: str, port: int) -> list[str]:
    # Also reads the forms in which a literal address can hide: decimal, octal, hexadecimal.
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
