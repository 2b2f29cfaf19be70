"""The shared store while Redis is killed, full, cut off, or shared by several gateways."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from contract_events import heard, told
from contract_jobs import OPEN, claim, drained, ended, job, result, submit, under_way
from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import StoreUnavailableError, UnknownJobError
from diffusion_gateway.job import Job, Lane, Status, Webhook
from diffusion_gateway.stores import open_store, redis_link, redis_store
from diffusion_gateway.stores.redis_link import PREFIX
from diffusion_gateway.stores.redis_store import RedisStore
from diffusion_gateway.stores.store import KeyRecord, Position, WorkerState
from redis_rig import RedisServer, free_port


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(redis_server.url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """The store of another gateway."""
    store = RedisStore(redis_server.url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def own_store(own_redis: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(own_redis.url)
    await store.open()
    yield store
    await store.close()


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


async def test_keys_that_an_autoscaler_reads(redis_server: RedisServer, store: RedisStore) -> None:
    for lane in (Lane.NORMAL, Lane.NORMAL, Lane.URGENT):
        await submit(store, lane=lane)
    await store.hand_back(await claim(store), blamed=False)
    queues = [f"diffusion:{{jobs}}:queue:emoji:{lane}" for lane in range(4)]
    assert [redis_server.ask("TYPE", queue) for queue in queues[:3]] == ["zset", "none", "zset"]
    assert [redis_server.ask("ZCARD", queue) for queue in queues] == [1, 0, 2, 0]
    await claim(store)
    assert redis_server.ask("ZCARD", "diffusion:{jobs}:leases") == 1


async def test_nothing_is_left_of_jobs_that_are_forgotten(
    redis_server: RedisServer, store: RedisStore
) -> None:
    for number in range(5):
        await ended(store, idempotency_key=f"k{number}", cache_keys={"i": str(number)})
    family = [await submit(store, cache_keys={"i": "k"}, deadline=1.0) for _ in range(3)]
    await store.end(await claim(store), Status.FAILED, error={})
    claimed = await claim(store)
    await store.publish(claimed.id, "progress", {"step": 1})
    await store.end(claimed, Status.COMPLETED, result=result())
    await store.cancel((await submit(store, tenant="other", lane=Lane.LOW)).id)
    assert len(await store.expire(time.time() + 1.0, 100)) == 6 + len(family)
    left = sorted(redis_server.ask("KEYS", "*"))
    assert left == [f"diffusion:{{jobs}}:{name}" for name in ("counts", "leased", "models")]
    counts = redis_server.ask("HGETALL", "diffusion:{jobs}:counts")
    assert set(counts.values() if isinstance(counts, dict) else counts[1::2]) == {"0"}


async def test_every_key_is_in_the_decision_page(
    redis_server: RedisServer, store: RedisStore
) -> None:
    page = Path(__file__).parents[2] / "docs/decisions/0005-a-queue-of-our-own.md"
    named = set(re.findall(r"`([a-z_]+)[`:]", page.read_text(encoding="utf-8")))
    script = re.findall(r"P \.\. '([a-z_]+)", redis_link._source())
    assert set(script) - {"nothing"} <= named
    await ended(store, cache_keys={"i": "k"}, webhook=Webhook(url="https://example.org/"))
    await store.heartbeat(WorkerState("a", "spot", (), 0, 1.0))
    await store.put_key(KeyRecord("1", "hash", "one", 1.0, {}))
    await store.take_token("b", 1.0, 5.0, time.time())
    await store.ping()
    await under_way(store, cache_keys={"i": "k"})
    kept = {key.removeprefix(PREFIX).split(":")[0] for key in redis_server.ask("KEYS", "*")}
    assert kept <= named


@pytest.mark.parametrize("many", [2000, pytest.param(10_000, marks=pytest.mark.full)])
async def test_thousands_of_jobs_wait(
    redis_server: RedisServer, store: RedisStore, many: int
) -> None:
    """A position takes a bounded number of small reads; a waiting job takes little memory."""
    chance = random.Random(5)
    redis_server.ask("CONFIG", "SET", "appendfsync", "no")
    before = redis_server.ask("INFO", "memory")["used_memory"]
    jobs = [
        job(
            fields={"prompt": "x" * 100, "seed": number},
            tenant=f"t{number % 7}",
            work=float(chance.randint(1, 10**8)),
        )
        for number in range(many)
    ]
    for start in range(0, many, 500):
        await asyncio.gather(*(store.submit(each, OPEN) for each in jobs[start : start + 500]))
    memory = (redis_server.ask("INFO", "memory")["used_memory"] - before) / many
    assert memory < 2000
    asked = chance.sample(jobs, 200)
    redis_server.ask("CONFIG", "RESETSTAT")
    places = {each.id: await store.position(each) for each in asked}
    calls = sum(stats["calls"] for stats in redis_server.ask("INFO", "commandstats").values())
    assert calls / len(asked) < 150
    order = await _order(redis_server)
    work = dict(zip(order, _sums([by_id.work for by_id in _by_id(jobs, order)]), strict=True))
    for job_id, place in places.items():
        assert place == Position(order.index(job_id), work[job_id])
    redis_server.ask("CONFIG", "SET", "appendfsync", "always")


async def _order(server: RedisServer) -> list[str]:
    members = server.ask("ZRANGE", "diffusion:{jobs}:queue:emoji:2", 0, -1)
    return [member[:32] for member in members]


def _by_id(jobs: list[Job], order: list[str]) -> list[Job]:
    found = {each.id: each for each in jobs}
    return [found[job_id] for job_id in order]


def _sums(works: list[float]) -> list[float]:
    total, found = 0.0, []
    for work in works:
        found.append(total)
        total += work
    return found


async def test_blocks_survive_any_mix(store: RedisStore) -> None:
    """Many jobs of one rank, jobs that leave from the middle, queues that run empty and refill."""
    chance = random.Random(11)
    for _ in range(2):
        # As many tenants as jobs: all start at the present, with the same rank.
        jobs = [job(tenant=f"t{number}") for number in range(300)]
        jobs += [job(work=float(chance.randint(1, 10**6))) for _ in range(500)]
        await asyncio.gather(*(store.submit(each, OPEN) for each in jobs))
        gone = chance.sample(jobs, 300)
        await asyncio.gather(*(store.cancel(each.id) for each in gone))
        gone_ids = {each.id for each in gone}
        left = [each for each in jobs if each.id not in gone_ids]
        places = [(await store.position(each), each) for each in left]
        places.sort(key=lambda entry: entry[0].ahead if entry[0] else -1)
        work = 0.0
        for ahead, (place, each) in enumerate(places):
            assert place == Position(ahead, work)
            work += each.work
        assert await drained(store) == [each.id for _, each in places]
        assert [depth.work for depth in await store.depths()] == [0.0]


async def test_a_redis_that_drops_keys_is_refused(redis_server: RedisServer) -> None:
    redis_server.ask("CONFIG", "SET", "maxmemory", "1gb")
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="noeviction"):
            await RedisStore(redis_server.url).open()
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_all_keys_are_in_one_slot_of_a_cluster(tmp_path: Path) -> None:
    bus = str(free_port())
    with RedisServer(tmp_path, "--cluster-enabled", "yes", "--cluster-port", bus) as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while True:
            try:
                server.ask("SET", "{jobs}", "1")
                break
            except redis.exceptions.RedisError:
                await asyncio.sleep(0.05)
        store = RedisStore(server.url)
        await store.open()
        await submit(store, cache_keys={"i": "k"}, deadline=1.0, idempotency_key="k")
        await submit(store, cache_keys={"i": "k"})
        await store.end(await claim(store), Status.COMPLETED, result=result())
        await store.cache_put("k", result(), time.time() + 10.0, 1000)
        assert len(await store.list(None, Status.COMPLETED, None, 10)) == 2
        slot = server.ask("CLUSTER", "KEYSLOT", "{jobs}")
        names = server.ask("KEYS", "*")
        assert {server.ask("CLUSTER", "KEYSLOT", name) for name in names} == {slot}
        await store.close()


@pytest.mark.parametrize(
    "url",
    ["", "redis:", "postgres://x", "sqlite:", "jobs.sqlite", "redis://h:port/0"],
)
def test_urls_of_no_store_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert refused.value.field == "store_url"


async def test_urls_of_stores(tmp_path: Path, redis_server: RedisServer) -> None:
    for url in (f"sqlite:{tmp_path}/jobs.sqlite", redis_server.url):
        store = open_store(url)
        await store.open()
        await store.ping()
        await store.close()
