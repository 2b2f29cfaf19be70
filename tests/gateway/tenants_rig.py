"""Tenants of a gateway that asks for keys."""

from __future__ import annotations

from typing import Any

import httpx2

from diffusion_gateway.gateway import Gateway
from diffusion_gateway.tenants import TenantSettings

PUBLIC: dict[str, Any] = {"host": "0.0.0.0", "port": 8000}


async def key_of(gateway: Gateway, tenant: str, **bounds: Any) -> dict[str, str]:
    """The headers of a new key."""
    _, key = await gateway.tenants.create(tenant, TenantSettings(**bounds))
    return {"authorization": f"Bearer {key}"}


async def submit(
    client: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: Any
) -> httpx2.Response:
    """The answer to a small request."""
    return await client.post("/generate", json={"prompt": "x", **fields}, headers=headers)
