"""Contract: what is kept of a job, who is next, and where everybody stands."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from contract_jobs import ALL, OPEN, WORK, claim, drained, ended, job, result, submit, under_way
from diffusion_core.fair_queue import next_horizon, tag
from diffusion_gateway.errors import (
    IdempotencyConflictError,
    QueueFullError,
    TooManyJobsError,
    UnknownJobError,
)
from diffusion_gateway.job import Checkpoint, Job, Lane, Priority, Status, Webhook, new_id
from diffusion_gateway.stores.store import Admission, JobStore, Position


class Reference:
    """The order of one model's queue by core's own rule, kept as simply as can be."""

    def __init__(self) -> None:
        self.lanes: dict[Lane, list[tuple[float, str, Job, float]]] = {lane: [] for lane in Lane}
        self.times: dict[Lane, float] = dict.fromkeys(Lane, 0.0)
        self.horizons: dict[Lane, dict[str, float]] = {lane: {} for lane in Lane}

    def submit(self, new: Job) -> None:
        horizons = self.horizons[new.lane]
        placed = tag(new.work, self.times[new.lane], horizons.get(new.tenant, 0.0))
        horizons[new.tenant] = next_horizon(placed, new.work)
        self.lanes[new.lane].append((placed.rank, new.id, new, placed.start))

    def order(self) -> list[Job]:
        return [
            entry[2]
            for lane in Lane
            for entry in sorted(self.lanes[lane], key=lambda entry: entry[:2])
        ]

    def take(self) -> Job:
        first = self.order()[0]
        entry = next(entry for entry in self.lanes[first.lane] if entry[2] is first)
        self.times[first.lane] = max(self.times[first.lane], entry[3])
        self._remove(first)
        return first

    def cancel(self, gone: Job) -> None:
        self.horizons[gone.lane][gone.tenant] -= gone.work
        self._remove(gone)

    def _remove(self, gone: Job) -> None:
        self.lanes[gone.lane] = [entry for entry in self.lanes[gone.lane] if entry[2] is not gone]
        if not self.lanes[gone.lane]:
            self.times[gone.lane], self.horizons[gone.lane] = 0.0, {}


class QueueContract:
    """Runs over the fixture `store`."""

    async def test_a_job_comes_back_as_it_was_sent(self, store: JobStore) -> None:
        made = job(
            fields={"prompt": 'snow ☃ "\\\n\x00 {}', "seed": 2**53 - 1, "guidance_scale": 0.1},
            inputs={"image": "inputs/x/image"},
            seeded=True,
            priority=Priority.HIGH,
            lane=Lane.URGENT,
            deadline=1795324459.8679185,
            webhook=Webhook(url="https://example.org/", events=("start", "completed")),
            idempotency_key="k",
            body_digest="d" * 64,
            cache_keys={"one": "a", "other": "b"},
            work=1 / 3,
        )
        submitted = await store.submit(made, OPEN)
        assert (submitted.job, submitted.created) == (made, True)
        assert await store.get(made.id) == made

    @pytest.mark.parametrize(
        "job_id",
        [
            "",
            "0",
            "0" * 31,
            "0" * 32,
            "0" * 33,
            "A" * 32,
            "*",
            "0" * 31 + "\n",
            "é" * 32,
            "x" * 9999,
        ],
    )
    async def test_any_other_id_is_unknown(self, store: JobStore, job_id: str) -> None:
        await submit(store)
        for ask in (store.get, store.cancel, store.delete):
            with pytest.raises(UnknownJobError):
                await ask(job_id)
        with pytest.raises(UnknownJobError):
            await anext(store.watch(job_id))
        assert await store.position(job(id=job_id)) is None
        assert not await store.complete_cached(job_id, result())
        await store.publish(job_id, "progress", {"step": 1})

    async def test_an_idempotency_key_gives_the_earlier_job(self, store: JobStore) -> None:
        first = await submit(store, idempotency_key="k", body_digest="a")
        again = await store.submit(job(idempotency_key="k", body_digest="a"), OPEN)
        assert (again.job, again.created) == (first, False)
        with pytest.raises(IdempotencyConflictError):
            await store.submit(job(idempotency_key="k", body_digest="b"), OPEN)
        await submit(store, idempotency_key="k", body_digest="b", tenant="other")
        await store.delete(first.id)
        await submit(store, idempotency_key="k", body_digest="b")

    async def test_one_of_many_with_the_same_key_at_once(self, store: JobStore) -> None:
        sent = [job(idempotency_key="k", body_digest="a") for _ in range(50)]
        answers = await asyncio.gather(*(store.submit(each, OPEN) for each in sent))
        assert sum(answer.created for answer in answers) == 1
        assert len({answer.job.id for answer in answers}) == 1

    async def test_bounds_of_waiting_and_of_unfinished_jobs(self, store: JobStore) -> None:
        await submit(store, tenant="other")
        with pytest.raises(QueueFullError) as full:
            await store.submit(job(), Admission(max_waiting=1))
        assert full.value.bound == {"max_waiting": 1}
        claimed = await claim(store)
        await store.submit(job(), Admission(max_waiting=1, max_active=1))
        with pytest.raises(TooManyJobsError) as busy:
            await store.submit(job(), Admission(max_active=1))
        assert busy.value.bound == {"max_active": 1}
        with pytest.raises(TooManyJobsError):
            await store.submit(job(tenant="other"), Admission(max_active=1))
        await store.end(claimed, Status.COMPLETED, result=result())
        await store.submit(job(tenant="other"), Admission(max_waiting=2, max_active=1))
        assert [depth.waiting for depth in await store.depths()] == [2]

    async def test_what_was_refused_left_nothing(self, store: JobStore) -> None:
        await submit(store)
        refused = job(idempotency_key="k", cache_keys={"i": "c"}, deadline=1.0)
        with pytest.raises(QueueFullError):
            await store.submit(refused, Admission(max_waiting=1))
        assert len(await store.list(None, None, None, 10)) == 1
        assert await store.overdue(2.0) == []
        taken = await submit(store, idempotency_key="k", cache_keys={"i": "c"})
        assert taken.follows is None

    async def test_lanes_are_taken_strictly_in_order(self, store: JobStore) -> None:
        low = await submit(store, lane=Lane.LOW, work=1.0)
        normal = await submit(store, lane=Lane.NORMAL, work=10.0)
        urgent = await submit(store, lane=Lane.URGENT, work=100.0)
        assert await store.claim("w", "emoji", [Lane.RETURNED], 60.0) is None
        assert await store.claim("w", "other", ALL, 60.0) is None
        wanted = [Lane.LOW, Lane.NORMAL, Lane.LOW]
        assert (await claim(store, lanes=wanted)).id == normal.id
        assert await drained(store) == [urgent.id, low.id]

    async def test_jobs_handed_back_go_first_in_order_of_submission(self, store: JobStore) -> None:
        made = [await submit(store) for _ in range(5)]
        claimed = [await claim(store) for _ in range(4)]
        await submit(store, lane=Lane.URGENT, work=1.0)
        for index in (2, 0, 3, 1):
            await store.hand_back(claimed[index], blamed=index % 2 == 0)
        assert (await drained(store))[:4] == [each.id for each in made[:4]]

    async def test_a_flood_does_not_starve_another_tenant(self, store: JobStore) -> None:
        await asyncio.gather(*(submit(store, tenant="flood") for _ in range(500)))
        few = {(await submit(store, tenant="few")).id for _ in range(5)}
        first = {(await claim(store)).id for _ in range(10)}
        assert few <= first

    async def test_a_flood_of_urgent_jobs_costs_nothing_elsewhere(self, store: JobStore) -> None:
        """Each lane has a line of its own: taking urgent jobs moves nobody's place in others."""
        await asyncio.gather(*(submit(store, tenant="flood") for _ in range(50)))
        await asyncio.gather(*(submit(store, tenant="flood", lane=Lane.URGENT) for _ in range(50)))
        await drained(store, lanes=[Lane.URGENT])
        late = await submit(store, tenant="few")
        assert (await drained(store)).index(late.id) <= 4

    async def test_weights_share_a_queue(self, store: JobStore) -> None:
        heavy = set()
        for _ in range(60):
            made = await store.submit(job(tenant="heavy"), Admission(weight=3.0))
            heavy.add(made.job.id)
            await submit(store, tenant="light")
        order = await drained(store)
        assert 28 <= len(heavy & set(order[:40])) <= 32

    async def test_short_work_goes_sooner_within_a_tenant(self, store: JobStore) -> None:
        long = await submit(store, work=100 * WORK)
        short = [await submit(store, work=WORK) for _ in range(3)]
        assert await drained(store) == [*(each.id for each in short), long.id]

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_position_is_what_then_happens(self, store: JobStore, seed: int) -> None:
        """Any mix of tenants, lanes and sizes, with claims and cancellations in between."""
        chance, reference = random.Random(seed), Reference()
        for _ in range(300):
            what = chance.random()
            waiting = reference.order()
            if what < 0.15 and waiting:
                assert (await claim(store)).id == reference.take().id
            elif what < 0.25 and waiting:
                gone = chance.choice(waiting)
                await store.cancel(gone.id)
                reference.cancel(gone)
            else:
                made = await submit(store, **_any(chance))
                reference.submit(made)
        waiting = reference.order()
        work = 0.0
        for ahead, each in enumerate(waiting):
            assert await store.position(each) == Position(ahead, work)
            work += each.work
        assert await drained(store) == [each.id for each in waiting]
        assert [await store.position(each) for each in waiting] == [None] * len(waiting)

    async def test_what_tenants_have_used_is_forgotten(self, store: JobStore) -> None:
        for index in range(200):
            await submit(store, tenant=f"t{index}")
        await submit(store, tenant="last", work=1e9)
        for _ in range(200):
            await claim(store)
        await submit(store, tenant="t0")
        await claim(store)
        assert await self.remembered_tenants(store) <= 2
        await drained(store)
        assert await self.remembered_tenants(store) == 0

    async def remembered_tenants(self, store: Any) -> int:
        """How many tenants' horizons the store keeps."""
        raise NotImplementedError

    async def test_cancelling_gives_a_tenant_its_share_back(self, store: JobStore) -> None:
        await submit(store, tenant="steady")
        gone = [await submit(store, tenant="fickle") for _ in range(20)]
        for each in gone:
            await store.cancel(each.id)
        await submit(store, tenant="steady")
        last = await submit(store, tenant="fickle")
        assert (await drained(store)).index(last.id) <= 1

    async def test_depths(self, store: JobStore) -> None:
        assert await store.depths() == []
        first = await submit(store, lane=Lane.LOW, work=10.0)
        await submit(store, lane=Lane.LOW, work=5.0)
        await submit(store, model="other")
        await claim(store, model="other")
        found = {(each.model, each.lane): each for each in await store.depths()}
        low, other = found["emoji", Lane.LOW], found["other", Lane.NORMAL]
        assert (low.waiting, low.leased, low.work) == (2, 0, 15.0)
        assert low.oldest == pytest.approx(first.submitted_at, abs=1e-3)
        assert (other.waiting, other.leased, other.oldest) == (0, 1, None)
        await drained(store)
        await store.cancel(first.id)
        found = {(each.model, each.lane): each for each in await store.depths()}
        assert found["emoji", Lane.LOW].leased == 1

    async def test_lists_are_newest_first_in_pages(self, store: JobStore) -> None:
        made = [await submit(store, id=f"{index:032x}") for index in range(7)]
        other = await submit(store, id=f"{99:032x}", tenant="other")
        claimed = await claim(store)
        assert [each.id for each in await store.list("one", None, None, 3)] == [
            made[index].id for index in (6, 5, 4)
        ]
        assert [each.id for each in await store.list("one", None, made[4].id, 10)] == [
            made[index].id for index in (3, 2, 1, 0)
        ]
        assert (await store.list(None, None, None, 1))[0].id == other.id
        assert [each.id for each in await store.list(None, Status.PROCESSING, None, 9)] == [
            claimed.id
        ]
        assert len(await store.list("one", Status.PENDING, None, 100)) == 6
        assert await store.list("nobody", None, None, 10) == []
        assert await store.list("one", None, "", 10) == []
        assert len(await store.list("one", None, "zzz", 10)) == 7

    async def test_a_list_shows_jobs_as_they_are(self, store: JobStore) -> None:
        claimed = await under_way(store)
        await store.progress(claimed, 3)
        await store.progress(claimed, 5, Checkpoint(key="c", step=5, runtime_identity="r"))
        assert list(await store.list(None, None, None, 9)) == [await store.get(claimed.id)]
        done = await ended(store)
        assert (await store.list(None, Status.COMPLETED, None, 9))[0] == done


def _any(chance: random.Random) -> dict[str, Any]:
    # Ids in random order: equal ranks are taken by id.
    return {
        "id": f"{chance.getrandbits(128):032x}" if chance.random() < 0.5 else new_id(),
        "tenant": chance.choice(["one", "two", "three"]),
        "lane": chance.choice([Lane.URGENT, Lane.NORMAL, Lane.NORMAL, Lane.LOW]),
        "work": float(chance.choice([1000, 1000, 2000, 64_000, chance.randint(1, 10**9)])),
    }
