"""Tenants: who asks, by which API key, and the bounds they are held to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error
from diffusion_gateway.errors import RateLimitError, UnauthorizedError
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.stores.store import Admission, JobStore, KeyRecord

KEY_PREFIX = "td_"

LOCAL = "local"
"""The tenant of everybody where requests need no key."""

READS_PER_SUBMISSION = 10
"""Reading is bounded too, at so many times the rate of submissions and in each gateway's memory: it
costs the queue nothing, yet a tenant that polls in a loop must not take the others' time."""

_KEY_BYTES = 32
_KEY = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{43}}\Z")
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_BUCKETS = 10_000


class TenantSettings(BaseModel):
    """Bounds that come with a key; None: the gateway's own setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: float = Field(1.0, gt=0, le=1000)
    """The tenant's share of each queue, against the others' weights."""
    requests_per_second: float | None = Field(None, gt=0)
    burst: int | None = Field(None, gt=0)
    max_active: int | None = Field(None, gt=0)
    """Jobs that have not ended."""
    cache: bool = True
    """Whether results may be found in the cache and kept there."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who asks, with bounds that hold."""

    name: str
    weight: float
    requests_per_second: float
    burst: int
    max_active: int
    cache: bool


class Tenants:
    """Makes, lists, revokes and recognises API keys; keeps everybody to their rate.

    A key is 32 random bytes and is kept as its SHA-256 only. Revoking works at once, on every
    gateway of the store, since nothing of a key is remembered here.
    """

    def __init__(self, store: JobStore, settings: GatewaySettings) -> None:
        self._store = store
        self._settings = settings
        self._reads: OrderedDict[str, _Bucket] = OrderedDict()
        self.local = self._tenant(LOCAL, TenantSettings())

    async def create(self, tenant: str, settings: TenantSettings) -> tuple[KeyRecord, str]:
        """A new key of `tenant`: its record, and the key itself, which is not kept anywhere."""
        if not _TENANT.match(tenant):
            raise ConfigError(
                "tenant: must be lower-case letters, digits, '.', '_' and '-', 64 at most",
                field="tenant",
            )
        random = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).rstrip(b"=").decode()
        key = KEY_PREFIX + random
        record = KeyRecord(
            id=uuid.uuid4().hex[:12],
            hash=key_hash(key),
            tenant=tenant,
            created_at=time.time(),
            settings=settings.model_dump(exclude_defaults=True),
        )
        await self._store.put_key(record)
        return record, key

    async def keys(self) -> Sequence[KeyRecord]:
        """All keys, oldest first; their hashes, never the keys."""
        return [record for record in await self._store.keys() if _TENANT.match(record.tenant)]

    async def revoke(self, key_id: str) -> bool:
        """Ends a key; False if there is none of that id."""
        known = any(record.id == key_id for record in await self.keys())
        return known and await self._store.revoke_key(key_id)

    async def authenticate(self, authorization: str | None) -> Tenant:
        """The tenant of an `Authorization: Bearer …` header, or `UnauthorizedError`."""
        if not self._settings.authenticates:
            return self.local
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise UnauthorizedError(
                "Authorization: must be 'Bearer' and an API key", field="Authorization"
            )
        if not _KEY.match(key):
            raise _unknown_key()
        digest = key_hash(key)
        record = await self._store.find_key(digest)
        if record is None or not hmac.compare_digest(record.hash, digest):
            raise _unknown_key()
        return self._tenant(record.tenant, tenant_settings(record))

    def named(self, name: str) -> Tenant:
        """A tenant that a ticket speaks for; its key's bounds are not known here."""
        return self._tenant(name, TenantSettings())

    def admission(self, tenant: Tenant) -> Admission:
        """The bounds of a submission."""
        return Admission(
            max_waiting=self._settings.max_waiting,
            max_active=tenant.max_active,
            weight=tenant.weight,
        )

    async def throttle(self, tenant: Tenant) -> None:
        """Counts a submission; `RateLimitError` says when the next may come.

        The bucket is the store's: it holds for all gateways together.
        """
        wait = await self._store.take_token(
            tenant.name, tenant.requests_per_second, tenant.burst, time.time()
        )
        if wait > 0:
            raise _too_often(tenant, wait)

    def throttle_reading(self, tenant: Tenant) -> None:
        """Counts any other request, in this gateway; `RateLimitError` as above."""
        bucket = self._reads.pop(tenant.name, None)
        if bucket is None:
            bucket = _Bucket()
            while len(self._reads) >= _BUCKETS:
                self._reads.popitem(last=False)
        self._reads[tenant.name] = bucket
        wait = bucket.take(
            tenant.requests_per_second * READS_PER_SUBMISSION,
            tenant.burst * READS_PER_SUBMISSION,
            time.monotonic(),
        )
        if wait > 0:
            raise _too_often(tenant, wait)

    def _tenant(self, name: str, own: TenantSettings) -> Tenant:
        settings = self._settings
        return Tenant(
            name=name,
            weight=own.weight,
            requests_per_second=own.requests_per_second or settings.requests_per_second_per_tenant,
            burst=own.burst or settings.request_burst_per_tenant,
            max_active=own.max_active or settings.max_active_per_tenant,
            cache=own.cache,
        )


def key_hash(key: str) -> str:
    """What is kept of a key: 32 random bytes need no salt and no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()


def tenant_settings(record: KeyRecord) -> TenantSettings:
    """The bounds in a key's record."""
    return parse_tenant_settings(record.settings)


def parse_tenant_settings(values: dict[str, Any]) -> TenantSettings:
    """Bounds from plain values; `ConfigError` names the one that is wrong."""
    try:
        return TenantSettings.model_validate(values)
    except ValidationError as error:
        field, message, bound, _ = first_error(error)
        raise ConfigError(f"{field}: {message}", field=field, bound=bound) from None


class _Bucket:
    """A token bucket that is full at first."""

    def __init__(self) -> None:
        self._tokens: float | None = None
        self._at = 0.0

    def take(self, rate: float, burst: float, now: float) -> float:
        """Takes a token; 0, or the seconds until there will be one."""
        tokens = burst if self._tokens is None else self._tokens + (now - self._at) * rate
        self._at = now
        self._tokens = min(burst, tokens)
        if self._tokens < 1:
            return (1 - self._tokens) / rate
        self._tokens -= 1
        return 0.0


def _unknown_key() -> UnauthorizedError:
    return UnauthorizedError("Authorization: the API key is not known", field="Authorization")


def _too_often(tenant: Tenant, wait: float) -> RateLimitError:
    return RateLimitError(
        "too many requests",
        bound={"requests_per_second": tenant.requests_per_second, "burst": tenant.burst},
        retry_after=wait,
    )
