"""The shared store while Redis is killed, full, cut off, or shared by several gateways."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contract_events import heard, told
from contract_jobs import OPEN, claim, drained, job, result, submit, under_way
from diffusion_gateway.errors import StoreUnavailableError, UnknownJobError
from diffusion_gateway.job import Lane, Status
from diffusion_gateway.stores import redis_link, redis_store
from diffusion_gateway.stores.redis_store import RedisStore
from redis_rig import RedisServer, open_redis


@pytest.fixture
def store(redis_store: RedisStore) -> RedisStore:
    return redis_store


@pytest.fixture
async def other(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """The store of another gateway."""
    async with open_redis(redis_server) as store:
        yield store


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def own_store(own_redis: RedisServer) -> AsyncIterator[RedisStore]:
    async with open_redis(own_redis) as store:
        yield store


class Load:
    """Submits jobs and ends them for as long as it runs, and remembers what it was told."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.accepted: list[str] = []
        self.completed: list[str] = []
        self.refused = 0

    async def submitting(self) -> None:
        while True:
            made = job()
            try:
                await self.store.submit(made, OPEN)
            except StoreUnavailableError:
                self.refused += 1
                await asyncio.sleep(0.01)
            else:
                self.accepted.append(made.id)

    async def working(self) -> None:
        while True:
            try:
                claimed = await self.store.claim("w", "emoji", tuple(Lane), 60.0)
                if claimed is None:
                    await asyncio.sleep(0.001)
                elif await self.store.end(claimed, Status.COMPLETED, result=result(claimed.id)):
                    self.completed.append(claimed.id)
            except StoreUnavailableError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("rounds", [3, pytest.param(40, marks=pytest.mark.full)])
async def test_what_was_accepted_is_there_after_kill_9(
    own_redis: RedisServer, own_store: RedisStore, rounds: int
) -> None:
    chance, store = random.Random(1), own_store
    load = Load(store)
    running = [asyncio.create_task(load.submitting()) for _ in range(6)]
    running += [asyncio.create_task(load.working()) for _ in range(2)]
    for number in range(rounds):
        await asyncio.sleep(chance.uniform(0.1, 0.4))
        before = load.refused
        own_redis.kill()
        while load.refused == before:
            await asyncio.sleep(0.01)
        own_redis.start()
        accepted = len(load.accepted)
        while len(load.accepted) == accepted:
            await asyncio.sleep(0.01)
        assert number == 0 or load.completed
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert len(load.accepted) > 100
    found = {job_id: (await store.get(job_id)).status for job_id in load.accepted}
    # The answer to a submission may be lost, and the job be there and end all the same.
    completed = found.keys() & set(load.completed)
    assert {found[job_id] for job_id in completed} == {Status.COMPLETED}
    # A claim whose answer was lost is nobody's until its lease runs out.
    waiting = {job_id for job_id in found if found[job_id] is Status.PENDING}
    assert waiting <= set(await drained(store))


async def test_a_redis_that_is_away(own_redis: RedisServer, own_store: RedisStore) -> None:
    store = own_store
    claimed = await under_way(store)
    watching = asyncio.create_task(heard(store.watch(claimed.id)))
    await asyncio.sleep(0.05)
    own_redis.kill()
    for call in (
        store.ping(),
        store.submit(job(), OPEN),
        store.get(claimed.id),
        store.claim("w", "emoji", tuple(Lane), 1.0),
        store.workers(0.0),
    ):
        with pytest.raises(StoreUnavailableError):
            await call
    own_redis.start()
    assert await store.get(claimed.id) == claimed
    assert await store.end(claimed, Status.COMPLETED, result=result())
    async with asyncio.timeout(10):
        assert told(await watching)[-1] == "completed"
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        await RedisStore(own_redis.url).open()


async def test_leases_outlive_an_outage(
    own_redis: RedisServer, own_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that could not renew because Redis was away are given time to."""
    store = own_store
    claimed = await under_way(store)
    own_redis.kill()
    with pytest.raises(StoreUnavailableError):
        await store.renew([claimed], 60.0)
    own_redis.start()
    later = time.time() + 1000.0
    assert await store.reap(later) == []
    assert await store.renew([claimed], 60.0) == set()
    monkeypatch.setattr(redis_store, "_GRACE_S", 0.0)
    assert [each.id for each in await store.reap(later)] == [claimed.id]


async def test_a_redis_that_hangs(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "_ANSWER_S", 0.3)
    store = RedisStore(own_redis.url)
    await store.open()
    taken = await submit(store)
    assert own_redis.process is not None
    os.kill(own_redis.process, signal.SIGSTOP)
    with pytest.raises(StoreUnavailableError):
        await store.get(taken.id)
    os.kill(own_redis.process, signal.SIGCONT)
    assert await store.get(taken.id) == taken
    await store.close()


async def test_a_full_redis_accepts_nothing_and_gets_its_work_done(
    redis_server: RedisServer, store: RedisStore
) -> None:
    made = [await submit(store, cache_keys={"i": str(number % 3)}) for number in range(9)]
    claimed = await claim(store)
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    before = redis_server.ask("DBSIZE")
    refused = job(idempotency_key="k", deadline=1.0)
    with pytest.raises(StoreUnavailableError):
        await store.submit(refused, OPEN)
    with pytest.raises(StoreUnavailableError):
        await store.cache_put("k", result(), time.time() + 10.0, 1000)
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    assert redis_server.ask("DBSIZE") == before
    with pytest.raises(UnknownJobError):
        await store.get(refused.id)
    # All that is needed to get rid of jobs still works.
    assert await store.renew([claimed], 60.0) == set()
    await store.progress(claimed, 3)
    await store.publish(claimed.id, "progress", {"step": 3})
    assert await store.take_token("b", 1.0, 1.0, time.time()) == 0.0
    assert await store.end(claimed, Status.COMPLETED, result=result())
    again = await claim(store)
    assert await store.hand_back(again, blamed=True) is not None
    assert (await store.cancel(made[2].id)).status is Status.CANCELLED
    await drained(store)
    assert len(await store.reap(time.time() + 100.0)) > 0
    for each in made:
        await store.delete(each.id)
    assert await store.list(None, None, None, 10) == []
    redis_server.ask("CONFIG", "SET", "maxmemory", "0")
    await submit(store)


async def test_gateways_hear_of_each_other(store: RedisStore, other: RedisStore) -> None:
    made = await submit(store)
    watching = asyncio.create_task(heard(other.watch(made.id)))
    cancellations = other.cancellations()
    await asyncio.sleep(0.05)
    claimed = await claim(other)
    assert await store.get(made.id) == claimed
    await other.publish(made.id, "progress", {"step": 1})
    assert await store.position(made) is None
    await store.cancel(made.id)
    async with asyncio.timeout(10):
        assert told(await watching) == ["pending", "processing", 1, "cancelled"]
        assert await anext(cancellations) == made.id
    assert await other.renew([claimed], 60.0) == {made.id}
    assert not await other.end(claimed, Status.COMPLETED, result=result())


async def test_two_gateways_take_each_job_once(store: RedisStore, other: RedisStore) -> None:
    made = {(await submit(store)).id for _ in range(100)}
    taken = await asyncio.gather(*(drained(each) for each in (store, other) for _ in range(4)))
    claimed = [job_id for some in taken for job_id in some]
    assert len(claimed) == 100
    assert set(claimed) == made


async def test_a_thousand_watchers_share_a_connection(
    redis_server: RedisServer, store: RedisStore
) -> None:
    claimed = await under_way(store)
    watching = [asyncio.create_task(heard(store.watch(claimed.id))) for _ in range(1000)]
    await asyncio.sleep(0.3)
    clients = redis_server.ask("CLIENT", "LIST", "TYPE", "PUBSUB")
    assert len(clients.splitlines()) == 1
    assert len(redis_server.ask("CLIENT", "LIST").splitlines()) < 25
    await store.end(claimed, Status.COMPLETED, result=result())
    async with asyncio.timeout(10):
        assert {told(events)[-1] for events in await asyncio.gather(*watching)} == {"completed"}


async def test_what_was_said_while_the_connection_was_cut(
    redis_server: RedisServer, store: RedisStore, other: RedisStore
) -> None:
    jobs = [await under_way(store) for _ in range(3)]
    watching = [asyncio.create_task(heard(store.watch(each.id))) for each in jobs]
    await asyncio.sleep(0.05)
    redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await other.publish(jobs[0].id, "progress", {"step": 1})
    await other.end(jobs[0], Status.COMPLETED, result=result())
    await other.publish(jobs[1].id, "progress", {"step": 2})
    await other.delete(jobs[2].id)
    async with asyncio.timeout(10):
        assert told(await watching[0])[-1] == "completed"
        assert told(await watching[2])[-1] == "cancelled"
    await other.cancel(jobs[1].id)
    async with asyncio.timeout(10):
        assert told(await watching[1]) == ["processing", 2, "cancelled"]


async def test_a_forgotten_script_is_loaded_again(
    redis_server: RedisServer, store: RedisStore
) -> None:
    redis_server.ask("SCRIPT", "FLUSH")
    await submit(store)
