"""What the shared store keeps in Redis: its keys, its blocks of jobs that wait, its address."""

from __future__ import annotations

import asyncio
import random
import re
import time
from pathlib import Path

import pytest
import redis

from contract_jobs import OPEN, claim, drained, ended, job, result, submit, under_way
from diffusion_core.errors import ConfigError
from diffusion_gateway.job import Job, Lane, Status, Webhook
from diffusion_gateway.stores import open_store, redis_link
from diffusion_gateway.stores.redis_link import PREFIX
from diffusion_gateway.stores.redis_store import RedisStore
from diffusion_gateway.stores.store import KeyRecord, Position, WorkerState
from redis_rig import RedisServer
from serving.ports import free_port


@pytest.fixture
def store(redis_store: RedisStore) -> RedisStore:
    return redis_store


async def test_keys_that_an_autoscaler_reads(redis_server: RedisServer, store: RedisStore) -> None:
    for lane in (Lane.NORMAL, Lane.NORMAL, Lane.URGENT):
        await submit(store, lane=lane)
    await store.hand_back(await claim(store), blamed=False)
    queues = [f"diffusion:{{jobs}}:queue:emoji:{lane}" for lane in range(4)]
    assert [redis_server.ask("TYPE", queue) for queue in queues[:3]] == ["zset", "none", "zset"]
    assert [redis_server.ask("ZCARD", queue) for queue in queues] == [1, 0, 2, 0]
    await claim(store)
    assert redis_server.ask("ZCARD", "diffusion:{jobs}:leases") == 1


async def test_what_a_pool_has_in_hand_is_counted_as_its_own(redis_server: RedisServer) -> None:
    def held(pool: str) -> int:
        return int(redis_server.ask("SCARD", f"diffusion:{{jobs}}:leases:{pool}"))

    here, there = (open_store(redis_server.url, pool) for pool in ("a10g", "spot-g5"))
    await here.open()
    await there.open()
    for _ in range(5):
        await submit(here)
    mine = [await claim(here, worker="a") for _ in range(2)]
    theirs = [await claim(there, worker="b") for _ in range(3)]
    assert (held("a10g"), held("spot-g5")) == (2, 3)
    # However it ends, and whoever ends it.
    await there.end(theirs[0], Status.COMPLETED, result=result())
    await here.cancel(theirs[1].id)
    assert (held("a10g"), held("spot-g5")) == (2, 1)
    assert len(await here.reap(time.time() + 100)) == 3
    assert (held("a10g"), held("spot-g5")) == (0, 0)
    again = await claim(there, worker="b")
    assert again.id == mine[0].id
    assert (held("a10g"), held("spot-g5")) == (0, 1)
    await there.hand_back(again, blamed=False)
    assert held("spot-g5") == 0
    await here.close()
    await there.close()


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
