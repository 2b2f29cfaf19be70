"""The embedded store with ten thousand jobs waiting: counted, not timed."""

from __future__ import annotations

import asyncio
import gc
import re
import time
import tracemalloc
from collections.abc import Sequence

import pytest

from contract_jobs import ALL, OPEN, claim, drained, ended, job, result, submit
from diffusion_gateway.job import Job, Lane, Status, Webhook
from diffusion_gateway.stores.sqlite_store import SqliteStore
from diffusion_gateway.stores.store import KeyRecord, Position

WALK = r"SCAN (?!CONSTANT)|TEMP B-TREE|of_status \(status=\?\)|of_tenant \(tenant=\?\)"
"""A whole table, a sorted list, all jobs of one status or tenant."""


async def submit_all(store: SqliteStore, jobs: Sequence[Job]) -> None:
    for start in range(0, len(jobs), 500):
        await asyncio.gather(*(store.submit(each, OPEN) for each in jobs[start : start + 500]))
    # Lets go of the last answers.
    await asyncio.sleep(0)


async def test_a_waiting_job_takes_little_memory(sqlite_store: SqliteStore) -> None:
    jobs = [job() for _ in range(2000)]
    await submit_all(sqlite_store, jobs[:1000])
    gc.collect()
    tracemalloc.start()
    await submit_all(sqlite_store, jobs[1000:])
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] / 1000
    tracemalloc.stop()
    assert memory < 800


@pytest.mark.parametrize("many", [2000, pytest.param(10_000, marks=pytest.mark.full)])
async def test_thousands_of_jobs_wait(sqlite_store: SqliteStore, many: int) -> None:
    jobs = [job(tenant=f"t{number % 7}", lane=Lane(1 + number % 3)) for number in range(many)]
    await submit_all(sqlite_store, jobs)
    said: list[str] = []
    for each in (sqlite_store.read, sqlite_store.write):
        await each(lambda to: getattr(to, "connection", to).set_trace_callback(said.append))
    said.clear()
    positions = [await sqlite_store.position(each) for each in jobs]
    depths = await sqlite_store.depths()
    assert said == []
    assert sorted(place.ahead for place in positions if place) == list(range(many))
    assert sum(depth.waiting for depth in depths) == many
    assert await sqlite_store.position(await claim(sqlite_store)) is None
    assert Position(0, 0.0) in [await sqlite_store.position(each) for each in jobs]


async def test_no_table_is_walked(sqlite_store: SqliteStore) -> None:
    """Every statement of every operation finds its rows by an index."""
    said: set[str] = set()
    for each in (sqlite_store.read, sqlite_store.write):
        await each(lambda to: getattr(to, "connection", to).set_trace_callback(said.add))
    await _everything(sqlite_store)
    for each in (sqlite_store.read, sqlite_store.write):
        await each(lambda to: getattr(to, "connection", to).set_trace_callback(None))
    asked = [line for line in said if re.match(r"SELECT|UPDATE|DELETE|INSERT", line)]
    assert len({line.split("WHERE")[-1] for line in asked}) > 30
    for line in asked:
        plan = await sqlite_store.read(
            lambda to, line=line: to.execute(f"EXPLAIN QUERY PLAN {line}").fetchall()  # type: ignore[misc]
        )
        steps = [row["detail"] for row in plan]
        walked = [step for step in steps if re.search(WALK, step)]
        # The API keys are listed whole; of the cache's index the first entry is read.
        assert not walked or "api_keys" in line or "ORDER BY used LIMIT 1" in line, (line, steps)


async def _everything(store: SqliteStore) -> None:
    told = Webhook(url="https://example.org/")
    done = await ended(store, webhook=told, cache_keys={"i": "a"})
    family = [
        await submit(store, cache_keys={"i": "b"}, deadline=5.0, idempotency_key=f"k{number}")
        for number in range(3)
    ]
    await submit(store, lane=Lane.LOW, deadline=2.0)
    await submit(store, tenant="starving", submitted_at=1.0)
    await store.promote(1.0, 2.0, -1.0)
    await store.overdue(3.0)
    await store.cancel(family[0].id)
    await store.end(await claim(store), Status.FAILED, error={})
    await store.hand_back(await claim(store), blamed=True)
    await store.end(await claim(store), Status.COMPLETED, result=result())
    for tenant in (None, "one"):
        for status in (None, Status.COMPLETED):
            await store.list(tenant, status, None, 10)
    await submit(store)
    await store.claim("w", "emoji", ALL, 1.0)
    await store.reap(time.time() + 10.0)
    await store.take_deliveries(time.time() + 1.0, 1.0, 10)
    await store.settle_delivery(done.id, time.time())
    await store.settle_delivery(done.id, None)
    await store.shares_files(done.id, but=done.id)
    for name in "abc":
        await store.cache_put(name, result(), time.time() + 100.0, 250)
        await store.cache_get(name, time.time())
    await store.cache_drop("c")
    await store.put_key(KeyRecord("1", "hash", "one", 1.0, {}))
    await store.find_key("hash")
    await store.keys()
    await store.revoke_key("1")
    await store.complete_cached((await submit(store)).id, result())
    await store.delete(done.id)
    await drained(store)
    await store.expire(time.time() + 1.0, 2)
    await store.ping()
