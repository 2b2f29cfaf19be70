"""Both stores do the same under any mix of operations, and never contradict themselves."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from contract_jobs import ALL, drained, job, result
from diffusion_gateway.job import Checkpoint, Job, Lane, Status, Webhook
from diffusion_gateway.stores.redis_store import RedisStore
from diffusion_gateway.stores.sqlite_store import SqliteStore
from diffusion_gateway.stores.store import Admission, Delivery, Depth, JobStore
from redis_rig import RedisServer

TIMES = {"started_at": None, "ended_at": None}
LATER = 1e6


@pytest.fixture
async def stores(
    sqlite_store: SqliteStore, redis_server: RedisServer
) -> AsyncIterator[tuple[SqliteStore, RedisStore]]:
    other = RedisStore(redis_server.url)
    await other.open()
    yield sqlite_store, other
    await other.close()


class Mix:
    """The same operations on both stores, chosen by chance, with answers compared."""

    def __init__(self, stores: tuple[JobStore, JobStore], seed: int) -> None:
        self.stores = stores
        self.chance = random.Random(seed)
        self.known: list[Job] = []
        self.leased: list[Job] = []

    async def both(self, ask: Callable[[JobStore], Awaitable[Any]]) -> Any:
        one, other = [_timeless(await ask(store)) for store in self.stores]
        assert one == other
        return one

    async def step(self) -> None:
        operations = [self.submit] * 8 + [self.claim] * 5 + [self.end] * 4 + [self.cancel] * 2
        operations += [self.hand_back, self.upkeep, self.progress, self.delete, self.cached]
        await self.chance.choice(operations)()

    async def submit(self) -> None:
        key = self.chance.choice(["a", "b", "c", None, None])
        made = job(
            tenant=self.chance.choice("xyz"),
            model=self.chance.choice(["emoji", "emoji", "twin"]),
            lane=self.chance.choice([Lane.URGENT, Lane.NORMAL, Lane.LOW]),
            work=float(self.chance.choice([1, 3, 1000, 12345])),
            deadline=self.chance.choice([None, None, 10.0, 20.0, 30.0]),
            cache_keys={} if key is None else {"i": key},
            webhook=self.chance.choice([None, Webhook(url="https://example.org/")]),
            idempotency_key=self.chance.choice([None, str(len(self.known) % 40)]),
        )
        bounds = Admission(weight=self.chance.choice([1.0, 2.0, 0.3]))
        self.known.append((await self.both(lambda store: store.submit(made, bounds))).job)

    async def claim(self) -> None:
        model, lanes = self.chance.choice(["emoji", "twin"]), self.chance.sample(ALL, 3)
        claimed = await self.both(lambda store: store.claim("w", model, lanes, 60.0))
        if claimed is not None:
            self.leased.append(claimed)

    async def end(self) -> None:
        if self.leased:
            taken = self.chance.choice(self.leased)
            if self.chance.random() < 0.6:
                outcome: dict[str, Any] = {"result": result(taken.id)}
                status = Status.COMPLETED
            else:
                outcome, status = {"error": {"code": "x"}}, Status.FAILED
            await self.both(lambda store: store.end(taken, status, **outcome))

    async def hand_back(self) -> None:
        if self.leased:
            taken, blamed = self.chance.choice(self.leased), self.chance.random() < 0.5
            await self.both(lambda store: store.hand_back(taken, blamed=blamed))

    async def progress(self) -> None:
        if self.leased:
            taken, step = self.chance.choice(self.leased), self.chance.randint(1, 20)
            point = Checkpoint(key=f"c{step}", step=step, runtime_identity="r")
            given = self.chance.choice([None, point])
            await self.both(lambda store: store.progress(taken, step, given))
            await self.both(lambda store: store.renew(self.leased, 60.0))

    async def cancel(self) -> None:
        if self.known:
            gone = self.chance.choice(self.known).id
            if gone in await self._ids():
                await self.both(lambda store: store.cancel(gone))

    async def delete(self) -> None:
        if self.known:
            gone = self.chance.choice(self.known).id
            if gone in await self._ids():
                await self.both(lambda store: store.delete(gone))
            await self.both(lambda store: store.shares_files(gone, but=self.known[0].id))

    async def cached(self) -> None:
        if self.known:
            found = self.chance.choice(self.known).id
            await self.both(lambda store: store.complete_cached(found, result("cache")))

    async def upkeep(self) -> None:
        now = self.chance.choice([5.0, 12.0, 15.0])
        starving = self.chance.choice([1.0, 1e9])
        await self.both(lambda store: store.promote(now, 6.0, starving))
        await self.both(lambda store: _sorted(store.overdue(now)))
        if self.chance.random() < 0.05:
            model, before = self.chance.choice(["emoji", "twin"]), self.chance.choice([5.0, 12.0])
            await self.both(lambda store: _sorted(store.unserved(model, before)))
        if self.chance.random() < 0.1:
            await self.both(lambda store: _sorted(store.reap(time.time() + LATER)))

    async def compare(self) -> None:
        """Everything that can be seen."""
        jobs = await self.both(lambda store: store.list(None, None, None, 10_000))
        for each in jobs:
            await self.both(lambda store, each=each: store.position(each))  # type: ignore[misc]
            if each.follows and not each.status.ended:
                leader = next(one for one in jobs if one.id == each.follows)
                assert not leader.status.ended
                assert leader.follows is None
        await self.both(lambda store: store.depths())
        told = await self.both(lambda store: _deliveries(store))
        assert len(told) == sum(1 for each in jobs if each.status.ended and each.webhook)

    async def _ids(self) -> set[str]:
        return {each.id for each in await self.stores[0].list(None, None, None, 10_000)}


async def _sorted(jobs: Awaitable[Any]) -> list[Job]:
    return sorted(await jobs, key=lambda each: each.id)


async def _deliveries(store: JobStore) -> list[Delivery]:
    told = await store.take_deliveries(LATER * LATER, 0.0, 10_000)
    return sorted(told, key=lambda each: each.job_id)


def _timeless(answer: Any) -> Any:
    """An answer without the moments at which the stores were asked."""
    if isinstance(answer, Job):
        return answer.model_copy(update=TIMES)
    if isinstance(answer, Depth):
        return replace(answer, oldest=answer.oldest and round(answer.oldest, 3))
    if isinstance(answer, list | tuple):
        return [_timeless(each) for each in answer]
    if hasattr(answer, "job"):
        return replace(answer, job=_timeless(answer.job))
    return answer


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(n, marks=pytest.mark.full) for n in range(2, 64))]
)
async def test_the_same_operations_do_the_same(
    stores: tuple[SqliteStore, RedisStore], seed: int
) -> None:
    mix = Mix(stores, seed)
    for number in range(400):
        await mix.step()
        if number % 80 == 79:
            await mix.compare()
    for model in ("emoji", "twin"):
        await mix.both(lambda store, model=model: drained(store, model))  # type: ignore[misc]
    await mix.compare()
    assert not any(depth.waiting for depth in await mix.stores[0].depths())
