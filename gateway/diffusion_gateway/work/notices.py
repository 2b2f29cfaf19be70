"""Notices that a cloud gives before it takes a spot machine away.

- AWS: instance metadata, version 2, `spot/instance-action`; two minutes before.
- GCP: `instance/preempted`, which answers when it changes; half a minute before.
- Azure: scheduled events of this machine; half a minute before a preemption.

Each follows its cloud's documentation and has been run against a server that plays it, not on the
cloud itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx2

logger = logging.getLogger(__name__)

Cloud = Literal["aws", "gcp", "azure"]

BASES: dict[Cloud, str] = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}

_POLL_S = 2.0
_PAUSE_S = 10.0
_TIMEOUT_S = 5.0

_AWS_TOKEN_S = 6 * 3600
_GCP_HOLD_S = 60
# Azure brings its service up with the first question, which may take two minutes.
_AZURE_TIMEOUT_S = 130.0
_AZURE_ENDS = ("Preempt", "Terminate", "Reboot", "Redeploy")


async def watch(
    cloud: Cloud, on_notice: Callable[[float], Awaitable[Any]], base: str | None = None
) -> None:
    """Calls `on_notice` once with the seconds that are left, and does not return: there is nothing
    to hear after that.

    Args:
        base: address of the metadata service; None: where the cloud has it.
    """
    waiters = {"aws": _aws, "gcp": _gcp, "azure": _azure}
    told = False
    while True:
        try:
            async with _client(base or BASES[cloud]) as client:
                left = await waiters[cloud](client)
            break
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            if not told:
                logger.warning("no notices from %s: %s", cloud, type(error).__name__)
                told = True
            await asyncio.sleep(_PAUSE_S)
    logger.warning("%s takes this machine away in %.0f s", cloud, left)
    await on_notice(left)
    await asyncio.Event().wait()


async def _aws(client: httpx2.AsyncClient) -> float:
    while True:
        answer = await client.put(
            "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_S)}
        )
        answer.raise_for_status()
        headers = {"X-aws-ec2-metadata-token": answer.text}
        while True:
            answer = await client.get("/latest/meta-data/spot/instance-action", headers=headers)
            if answer.status_code == 401:
                break
            if answer.status_code != 404:
                answer.raise_for_status()
                return _until(datetime.fromisoformat(answer.json()["time"]))
            await asyncio.sleep(_POLL_S)


async def _gcp(client: httpx2.AsyncClient) -> float:
    path = "/computeMetadata/v1/instance/preempted"
    headers = {"Metadata-Flavor": "Google"}
    answer = await client.get(path, headers=headers)
    while True:
        answer.raise_for_status()
        if answer.text.strip() == "TRUE":
            return 30.0
        params = {"wait_for_change": "true", "timeout_sec": str(_GCP_HOLD_S)}
        params["last_etag"] = answer.headers.get("ETag", "0")
        answer = await client.get(
            path, headers=headers, params=params, timeout=_GCP_HOLD_S + _TIMEOUT_S
        )


async def _azure(client: httpx2.AsyncClient) -> float:
    headers = {"Metadata": "true"}
    named = await client.get(
        "/metadata/instance/compute/name",
        params={"api-version": "2021-02-01", "format": "text"},
        headers=headers,
    )
    named.raise_for_status()
    while True:
        answer = await client.get(
            "/metadata/scheduledevents",
            params={"api-version": "2020-07-01"},
            headers=headers,
            timeout=_AZURE_TIMEOUT_S,
        )
        answer.raise_for_status()
        for event in answer.json()["Events"]:
            if event["EventType"] in _AZURE_ENDS and named.text in event["Resources"]:
                # No moment: it has begun.
                at = event.get("NotBefore")
                return _until(parsedate_to_datetime(at)) if at else 0.0
        await asyncio.sleep(_POLL_S)


def _until(moment: datetime) -> float:
    return max(0.0, moment.timestamp() - time.time())


@asynccontextmanager
async def _client(base: str) -> AsyncIterator[httpx2.AsyncClient]:
    # The service is this machine's own: a proxy in the environment has no part in it.
    async with httpx2.AsyncClient(base_url=base, timeout=_TIMEOUT_S, trust_env=False) as client:
        yield client
