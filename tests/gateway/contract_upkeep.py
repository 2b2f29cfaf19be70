"""Contract: what is done now and then: jobs made urgent, overdue, forgotten, and told of."""

from __future__ import annotations

import time

from contract_ends import KEY, TOLD, family
from contract_jobs import WORK, claim, drained, ended, result, submit, under_way
from diffusion_gateway.job import Lane, Priority, Status, Webhook
from diffusion_gateway.stores.store import Delivery, JobStore, Position

NEVER = 1e9
"""Seconds after which jobs starve, where that is not what is tried."""


class UpkeepContract:
    """Runs over the fixture `store`."""

    async def test_what_is_nearly_due_becomes_urgent(self, store: JobStore) -> None:
        far = await submit(store, deadline=500.0)
        near = await submit(store, deadline=120.0, lane=Lane.LOW)
        assert await store.promote(100.0, 20.0, NEVER) == 0
        assert await store.promote(100.0, 20.1, NEVER) == 1
        assert await store.promote(100.0, 20.1, NEVER) == 0
        found = await store.get(near.id)
        assert (found.lane, found.priority) == (Lane.URGENT, Priority.NORMAL)
        assert await store.position(far) == Position(1, WORK)
        assert await drained(store) == [near.id, far.id]
        assert await store.promote(1000.0, 20.0, NEVER) == 0

    async def test_a_follower_that_is_nearly_due(self, store: JobStore) -> None:
        first = await submit(store, cache_keys=KEY)
        follower = await submit(store, cache_keys=KEY, deadline=100.0)
        assert await store.promote(90.0, 20.0, NEVER) == 1
        assert (await store.get(first.id)).lane is Lane.URGENT
        assert (await store.get(follower.id)).follows == first.id

    async def test_urgent_jobs_of_one_tenant_starve_no_other(self, store: JobStore) -> None:
        for _ in range(20):
            await submit(store, tenant="flood", lane=Lane.URGENT, submitted_at=1.0)
        own = await submit(store, tenant="flood", submitted_at=1.0)
        patient = [await submit(store, tenant="patient", submitted_at=1.0) for _ in range(3)]
        low = await submit(store, tenant="low", lane=Lane.LOW, submitted_at=1.0)
        fresh = await submit(store, tenant="fresh", submitted_at=90.0)
        # One of each tenant that has had nothing of the urgent lane; and again once that was used.
        assert await store.promote(100.0, 1.0, 60.0) == 2
        assert await store.promote(100.0, 1.0, 60.0) == 0
        lanes = [(await store.get(each.id)).lane for each in (own, *patient, low, fresh)]
        assert lanes == [Lane.NORMAL, Lane.URGENT, Lane.NORMAL, Lane.NORMAL, Lane.URGENT, 2]
        taken = [await claim(store) for _ in range(4)]
        assert {patient[0].id, low.id} < {each.id for each in taken}
        assert await store.promote(100.0, 1.0, 60.0) == 1
        assert (await store.get(patient[1].id)).lane is Lane.URGENT

    async def test_nobody_starves_where_nothing_is_urgent(self, store: JobStore) -> None:
        for _ in range(2):
            await submit(store, submitted_at=1.0)
        await submit(store, model="twin", lane=Lane.URGENT)
        assert await store.promote(100.0, 1.0, 60.0) == 0

    async def test_what_is_overdue_fails(self, store: JobStore) -> None:
        late = [await submit(store, deadline=100.0 + index) for index in range(3)]
        taken = await under_way(store, deadline=90.0, lane=Lane.URGENT)
        heirs = await family(store, 1, deadline=100.5)
        failed = await store.overdue(101.0)
        assert {each.id for each in failed} == {each.id for each in (*late[:2], *heirs)}
        for each in failed:
            assert each == await store.get(each.id)
            assert each.status is Status.FAILED
            assert each.error is not None
            assert each.error["code"] == "deadline_exceeded"
        assert await store.overdue(101.0) == []
        assert (await store.get(taken.id)).status is Status.PROCESSING
        await store.hand_back(taken, blamed=False)
        assert [each.id for each in await store.overdue(101.0)] == [taken.id]
        assert await drained(store) == [late[2].id]

    async def test_an_overdue_job_leaves_its_place_to_its_followers(self, store: JobStore) -> None:
        await submit(store, cache_keys=KEY, deadline=100.0)
        follower = await submit(store, cache_keys=KEY)
        other = await submit(store)
        assert len(await store.overdue(200.0)) == 1
        assert await drained(store) == [follower.id, other.id]

    async def test_what_waits_for_a_model_that_nobody_serves_fails(self, store: JobStore) -> None:
        old = [await submit(store, submitted_at=at, lane=lane) for at, lane in ((5.0, 2), (1.0, 3))]
        heirs = await family(store, 2, submitted_at=7.0)
        new = await submit(store, submitted_at=10.0)
        other = await submit(store, model="twin", submitted_at=1.0)
        taken = await under_way(store, submitted_at=3.0, lane=Lane.URGENT)
        failed = await store.unserved("emoji", 10.0)
        assert {each.id for each in failed} == {each.id for each in (*old, *heirs)}
        for each in failed:
            assert each == await store.get(each.id)
            assert each.status is Status.FAILED
            assert each.error is not None
            assert each.error["code"] == "model_unserved"
        assert await store.unserved("emoji", 10.0) == []
        assert (await store.get(taken.id)).status is Status.PROCESSING
        assert await drained(store) == [new.id]
        assert await drained(store, "twin") == [other.id]

    async def test_jobs_are_forgotten_some_time_after_their_end(self, store: JobStore) -> None:
        done = [await ended(store) for _ in range(5)]
        waiting = await submit(store)
        assert await store.expire(done[0].ended_at or 0.0, 100) == []
        assert await store.expire(time.time() + 10.0, 2) == done[:2]
        assert await store.expire(time.time() + 10.0, 100) == done[2:]
        assert [each.id for each in await store.list(None, None, None, 10)] == [waiting.id]

    async def test_ends_that_webhooks_are_told(self, store: JobStore) -> None:
        told = await ended(store, webhook=TOLD)
        await ended(store)
        await ended(store, webhook=Webhook(url="https://example.org/", events=("start",)))
        cancelled = await submit(store, webhook=TOLD)
        await store.cancel(cancelled.id)
        now = time.time() + 1.0
        taken = await store.take_deliveries(now, 30.0, 10)
        assert list(taken) == [Delivery(told.id, 1), Delivery(cancelled.id, 1)]
        assert await store.take_deliveries(now + 29.0, 30.0, 10) == []
        assert len(await store.take_deliveries(now + 31.0, 30.0, 1)) == 1
        await store.settle_delivery(told.id, None)
        await store.settle_delivery(cancelled.id, now + 100.0)
        assert await store.take_deliveries(now + 99.0, 30.0, 10) == []
        assert [each.job_id for each in await store.take_deliveries(now + 101.0, 30.0, 10)] == [
            cancelled.id
        ]
        await store.delete(cancelled.id)
        await store.settle_delivery(cancelled.id, now)
        assert await store.take_deliveries(now + 999.0, 30.0, 10) == []

    async def test_a_delivery_that_was_not_tried_has_its_attempt_back(
        self, store: JobStore
    ) -> None:
        told = await ended(store, webhook=Webhook(url="https://a.example/"))
        now, attempts = time.time() + 1.0, []
        for untried in (True, True, False, True, False):
            (taken,) = await store.take_deliveries(now, 30.0, 10)
            attempts.append(taken.attempts)
            await store.settle_delivery(told.id, now, untried=untried)
        assert attempts == [1, 1, 1, 2, 2]
        await store.delete(told.id)
        await store.settle_delivery(told.id, now, untried=True)
        assert await store.take_deliveries(now, 30.0, 10) == []

    async def test_deliveries_of_all_ways_to_end(self, store: JobStore) -> None:
        family_ids = {each.id for each in await family(store, 2, webhook=TOLD)}
        await store.end(await claim(store), Status.COMPLETED, result=result())
        late = await submit(store, webhook=TOLD, deadline=1.0)
        await store.overdue(2.0)
        found = await submit(store, webhook=TOLD)
        await store.complete_cached(found.id, result())
        taken = await store.take_deliveries(time.time() + 1.0, 30.0, 10)
        assert {each.job_id for each in taken} == family_ids | {late.id, found.id}
