"""A job as clients see it, and the links to its pictures."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from diffusion_costs.money import Money
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.job import Cost, Event, Job, Picture, Status

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from diffusion_gateway.gateway import Gateway

_LINK_S = 600.0
"""Links to previews are good for one to two times as long."""


class Documents:
    """Writes the public documents of jobs and of their events.

    Args:
        base: what links begin with, without a slash at the end.
    """

    def __init__(self, gateway: Gateway, base: str) -> None:
        self._gateway = gateway
        self._base = base

    async def job(self, job: Job, *, place: bool = True, request: bool = False) -> dict[str, Any]:
        """The whole document.

        Args:
            place: whether to look up the place in the queue and to estimate the end.
            request: whether to show what was asked for, prompt included.
        """
        document: dict[str, Any] = {
            "job_id": job.id,
            "status": job.status.value,
            "model": job.model,
            "task": job.task,
            "priority": job.priority.value,
            "progress": round(job.progress, 4),
            "step": job.steps if job.status is Status.COMPLETED else job.step,
            "steps": job.steps,
            "seed": job.fields.get("seed"),
            "submitted_at": moment(job.submitted_at),
            "started_at": moment(job.started_at),
            "completed_at": moment(job.ended_at),
            "deadline": moment(job.deadline),
            "attempts": job.attempts,
            "image_url": None,
            "images": [],
            "error": job.error,
            "cached": job.result is not None and job.result.cached,
            "links": self._links(job),
        }
        if place and not job.status.ended:
            document |= await self.place(job)
        if job.result is not None:
            document |= await self._result(job)
        if request:
            document["request"] = self._request(job)
        return document

    async def place(self, job: Job) -> dict[str, Any]:
        """Where the job waits (1: it is next) and the seconds until its end, as estimated; without
        what the store does not tell, since it has kept the job."""
        found: dict[str, Any] = {}
        with suppress(StoreUnavailableError):
            await self._find_place(job, found)
        return found

    async def _find_place(self, job: Job, found: dict[str, Any]) -> None:
        if job.status is Status.PENDING:
            position = await self._gateway.store.position(job)
            if position is not None:
                found["queue_position"] = position.ahead + 1
        interval = await self._gateway.estimator.interval(job)
        if interval is not None:
            found["estimated_time"] = round(interval.expected, 3)
            found["estimated_interval"] = [round(interval.low, 3), round(interval.high, 3)]

    def event(self, event: Event, job: Job) -> dict[str, Any]:
        """An event that is not the last; the last one is the job's document."""
        document: dict[str, Any] = {"job_id": job.id, "status": Status.PROCESSING.value}
        if event.kind == "status":
            document["status"] = event.data["status"]
            step = 0 if document["status"] == Status.PENDING else job.step
        else:
            step = event.data["step"]
        steps = event.data.get("steps", job.steps)
        document |= {"step": step, "steps": steps, "progress": round(min(1.0, step / steps), 4)}
        if event.kind == "preview":
            # The preview of the job whose generation this one shares, if it does.
            owner = event.data["key"].split("/")[1]
            until = self._until(None)
            document["url"] = self._own_link(owner, f"previews/{step}", job.tenant, until)
        return document

    async def _result(self, job: Job) -> dict[str, Any]:
        result = job.result
        assert result is not None
        images = [
            await self._picture(job, index, picture)
            for index, picture in enumerate(result.pictures)
        ]
        return {
            "image_url": images[0]["url"] if images else None,
            "images": images,
            "seed": result.pictures[0].seed if result.pictures else job.fields.get("seed"),
            "scheduler": result.scheduler,
            "prompt_truncated": result.prompt_truncated,
            "timings": result.timings,
            "device_seconds": result.device_seconds,
            "cost": _cost(result.cost),
            "identity": result.identity,
            "runtime_identity": result.runtime_identity,
        }

    async def _picture(self, job: Job, index: int, picture: Picture) -> dict[str, Any]:
        thumbnail = None
        if picture.thumbnail is not None:
            thumbnail = await self._link(picture.thumbnail, f"thumbnails/{index}", job)
        return {
            "url": await self._link(picture.key, f"images/{index}", job),
            "thumbnail_url": thumbnail,
            "seed": picture.seed,
            "width": picture.width,
            "height": picture.height,
            "content_type": picture.content_type,
            "size": picture.size,
            "flagged": picture.flagged,
        }

    async def _link(self, key: str, name: str, job: Job) -> str:
        """Straight to the storage where that is public or signs links, else through the gateway."""
        direct = await self._gateway.results.url(key)
        # A job that shared another's generation has that one's files.
        owner = key.split("/")[1]
        return direct or self._own_link(owner, name, job.tenant, self._until(job))

    def _own_link(self, owner: str, name: str, tenant: str, until: float) -> str:
        """A link of the gateway's, with a ticket where requests need a key: whoever shows a picture
        can seldom send a header."""
        link = f"{self._base}/jobs/{owner}/{name}"
        if not self._gateway.settings.authenticates:
            return link
        return f"{link}?ticket={self._gateway.tickets.issue('files', tenant, owner, until)}"

    def _until(self, job: Job | None) -> float:
        """When a link ends: with the result, or some minutes from now, in steps, so that a link
        stays the same from one document to the next and can be cached."""
        if job is not None and job.ended_at is not None:
            return job.ended_at + self._gateway.settings.result_lifetime_s
        return (time.time() // _LINK_S + 2) * _LINK_S

    def _links(self, job: Job) -> dict[str, str]:
        base = f"{self._base}/jobs/{job.id}"
        sockets = "ws" + self._base.removeprefix("http")
        return {
            "self": base,
            "cancel": base,
            "events": f"{base}/events",
            "websocket": f"{sockets}/ws/jobs/{job.id}",
        }

    def _request(self, job: Job) -> dict[str, Any]:
        asked: dict[str, Any] = {**job.fields, "model": job.model, "priority": job.priority.value}
        if job.inputs:
            asked["inputs"] = sorted(job.inputs)
        if job.webhook is not None:
            asked["webhook"] = job.webhook.model_dump(mode="json")
        return asked


def _cost(cost: Cost | None) -> dict[str, str] | None:
    if cost is None:
        return None
    amount = Money.from_nanos(cost.nanos, cost.currency).plain(9)
    return {
        "amount": amount,
        "currency": cost.currency,
        "machine": cost.machine,
        "purchase": cost.purchase,
        "prices_as_of": cost.prices_as_of,
    }


def cost_headers(job: Job) -> dict[str, str]:
    """What a job's pictures took and cost, as headers of an answer about it."""
    result = job.result
    if result is None:
        return {}
    told = {"X-Device-Seconds": f"{result.device_seconds:.6f}"}
    cost = _cost(result.cost)
    if cost is not None:
        told["X-Cost"] = f"{cost['amount']} {cost['currency']}"
    return told


def base_of(connection: HTTPConnection, public_url: str | None) -> str:
    """What links begin with: the public address, or the one that the client used."""
    if public_url is not None:
        return public_url.rstrip("/")
    scope = connection.scope
    host = connection.headers.get("host") or "127.0.0.1"
    scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
    return f"{scheme}://{host}{scope.get('root_path', '')}"


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as RFC 3339 in UTC."""
    if seconds is None:
        return None
    written = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")
