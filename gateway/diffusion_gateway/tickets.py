"""Tickets: what stands in for an API key in a link, where a browser can send no header.

A ticket is an HMAC over its purpose, tenant, job and end. It opens one kind of door of one job, for
as long as it says, on every gateway of the store.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import uuid
from typing import Literal

from diffusion_gateway.errors import UnauthorizedError
from diffusion_gateway.stores.store import JobStore, KeyRecord

Purpose = Literal["watch", "files"]
"""watch: a job's WebSocket and event stream; files: its pictures, as their links name them."""

WATCH_S = 60.0
"""A watching ticket must be used within so long; what it opened stays open."""

_OWNER = "_tickets"
"""Not a name that a tenant can have."""

_READ_AGAIN_S = 1.0


class Tickets:
    """Issues tickets and checks them.

    The secret lies beside the API keys in the store, made by whichever gateway comes first. Two
    that come first at once make two: the older one signs, and both are honoured.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._secrets: list[bytes] = []
        self._read_at = 0.0

    async def open(self) -> None:
        """Reads the secret, or makes it."""
        await self._read()
        if not self._secrets:
            await self._store.put_key(_new_secret())
            await self._read()

    def issue(self, purpose: Purpose, tenant: str, job_id: str, expires: float) -> str:
        """A ticket that is good until `expires`, in seconds since 1970."""
        end = int(expires)
        return f"{tenant}~{end}~{_sign(self._secrets[0], purpose, tenant, job_id, end)}"

    async def check(self, ticket: str, purpose: Purpose, job_id: str) -> str:
        """The tenant that the ticket speaks for, or `UnauthorizedError`."""
        tenant, end, signature = _parts(ticket)
        if not self._signed(tenant, end, signature, purpose, job_id):
            # Another gateway may have made its secret after this one read them.
            if time.monotonic() - self._read_at > _READ_AGAIN_S:
                await self._read()
            if not self._signed(tenant, end, signature, purpose, job_id):
                raise UnauthorizedError("ticket: is not valid here", field="ticket")
        if end < time.time():
            raise UnauthorizedError("ticket: its time is over", field="ticket")
        return tenant

    def _signed(self, tenant: str, end: int, signature: str, purpose: Purpose, job_id: str) -> bool:
        given = signature.encode()
        return any(
            hmac.compare_digest(_sign(secret, purpose, tenant, job_id, end).encode(), given)
            for secret in self._secrets
        )

    async def _read(self) -> None:
        self._read_at = time.monotonic()
        records = [record for record in await self._store.keys() if record.tenant == _OWNER]
        records.sort(key=lambda record: (record.created_at, record.id))
        self._secrets = [bytes.fromhex(record.settings["secret"]) for record in records]


def _new_secret() -> KeyRecord:
    identifier = uuid.uuid4().hex
    return KeyRecord(
        id=identifier,
        # No API key has this hash: those are hashes of texts that begin with td_.
        hash=hashlib.sha256(f"{_OWNER}:{identifier}".encode()).hexdigest(),
        tenant=_OWNER,
        created_at=time.time(),
        settings={"secret": secrets.token_hex(32)},
    )


def _sign(secret: bytes, purpose: Purpose, tenant: str, job_id: str, end: int) -> str:
    message = "\n".join((purpose, tenant, job_id, str(end))).encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _parts(ticket: str) -> tuple[str, int, str]:
    tenant, _, rest = ticket.partition("~")
    end, _, signature = rest.partition("~")
    if not (end.isascii() and end.isdigit() and len(end) <= 12):
        raise UnauthorizedError("ticket: is not valid here", field="ticket")
    return tenant, int(end), signature
