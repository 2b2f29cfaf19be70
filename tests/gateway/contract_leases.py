"""Contract: a worker's hold on a job, and what becomes of it when the worker is lost."""

from __future__ import annotations

import asyncio
import time

from contract_jobs import ALL, claim, result, submit, under_way
from diffusion_gateway.job import Checkpoint, Lane, Status
from diffusion_gateway.stores.store import MAX_ATTEMPTS, JobStore, ToldModel, WorkerState

LATER = 1000.0


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(key=f"checkpoints/x/{step}", step=step, runtime_identity="r")


class LeaseContract:
    """Runs over the fixture `store`."""

    async def test_a_claimed_job_is_the_workers(self, store: JobStore) -> None:
        made = await submit(store)
        before = time.time()
        claimed = await store.claim("w", "emoji", ALL, 60.0)
        assert claimed is not None
        assert claimed.id == made.id
        assert (claimed.worker, claimed.attempts, claimed.status) == ("w", 1, Status.PROCESSING)
        assert claimed.started_at is not None
        assert before <= claimed.started_at <= time.time()
        assert await store.claim("other", "emoji", ALL, 60.0) is None
        assert await store.get(made.id) == claimed

    async def test_a_lease_lasts_as_long_as_it_is_renewed(self, store: JobStore) -> None:
        claimed = await under_way(store)
        assert await store.reap(time.time() + 50.0) == []
        assert await store.renew([claimed], LATER) == set()
        assert await store.reap(time.time() + 500.0) == []
        assert [each.id for each in await store.reap(time.time() + 2 * LATER)] == [claimed.id]
        assert await store.renew([claimed], LATER) == {claimed.id}
        assert await store.reap(time.time() + 4 * LATER) == []

    async def test_renewing_names_those_that_are_gone(self, store: JobStore) -> None:
        made = [await under_way(store) for _ in range(5)]
        await store.cancel(made[0].id)
        await store.delete(made[1].id)
        await store.hand_back(made[2], blamed=False)
        await store.end(made[3], Status.COMPLETED, result=result())
        assert await store.renew(made, 60.0) == {each.id for each in made[:4]}
        assert await store.renew([], 60.0) == set()

    async def test_a_late_worker_changes_nothing(self, store: JobStore) -> None:
        late = await under_way(store)
        await store.reap(time.time() + LATER)
        claimed = await claim(store, worker="w")
        assert (claimed.id, claimed.attempts) == (late.id, 2)
        assert await store.progress(late, 9) is None
        assert await store.progress(late, 9, checkpoint(9)) == checkpoint(9)
        assert await store.hand_back(late, blamed=True) is None
        assert not await store.end(late, Status.COMPLETED, result=result())
        assert await store.renew([late], 60.0) == {late.id}
        assert await store.get(late.id) == claimed
        assert await store.end(claimed, Status.COMPLETED, result=result())

    async def test_a_job_is_given_up_after_its_attempts(self, store: JobStore) -> None:
        made = await submit(store)
        # The first loss is nobody's fault.
        for attempt in range(1, MAX_ATTEMPTS + 2):
            claimed = await claim(store)
            assert (claimed.attempts, claimed.alone) == (attempt, attempt > 2)
            (reaped,) = await store.reap(time.time() + LATER)
            assert reaped == await store.get(made.id)
        assert (reaped.status, reaped.attempts) == (Status.FAILED, MAX_ATTEMPTS + 1)
        assert reaped.error is not None
        assert reaped.error["code"] == "attempts_exhausted"
        assert reaped.ended_at is not None

    async def test_who_reaps_hears_what_was_done(self, store: JobStore) -> None:
        claimed = await under_way(store)
        await store.progress(claimed, 5, checkpoint(5))
        await store.progress(claimed, 7)
        (reaped,) = await store.reap(time.time() + LATER)
        assert (reaped.step, reaped.checkpoint) == (7, checkpoint(5))
        assert (await store.get(claimed.id)).step == 5

    async def test_handing_back_without_blame_takes_the_attempt_back(self, store: JobStore) -> None:
        made = await submit(store)
        for _ in range(2 * MAX_ATTEMPTS):
            claimed = await claim(store)
            returned = await store.hand_back(claimed, blamed=False)
            assert returned == await store.get(made.id)
            assert returned is not None
            assert (returned.status, returned.lane) == (Status.PENDING, Lane.RETURNED)
            assert (returned.attempts, returned.alone, returned.worker) == (0, False, None)
        assert await store.hand_back(claimed, blamed=False) is None

    async def test_blame_is_not_forgotten(self, store: JobStore) -> None:
        await store.hand_back(await under_way(store), blamed=True)
        returned = await store.hand_back(await claim(store), blamed=False)
        assert returned is not None
        assert (returned.attempts, returned.alone) == (1, True)

    async def test_progress_and_checkpoints(self, store: JobStore) -> None:
        claimed = await under_way(store)
        assert await store.progress(claimed, 3) is None
        assert (await store.get(claimed.id)).progress == 3 / 20
        assert await store.progress(claimed, 5, checkpoint(5)) is None
        assert await store.progress(claimed, 10, checkpoint(10)) == checkpoint(5)
        await store.progress(claimed, 13)
        found = await store.get(claimed.id)
        assert (found.step, found.checkpoint) == (13, checkpoint(10))
        returned = await store.hand_back(claimed, blamed=True)
        assert returned is not None
        assert (returned.step, returned.checkpoint) == (10, checkpoint(10))
        again = await claim(store)
        assert (again.step, again.checkpoint) == (10, checkpoint(10))
        assert again.started_at == claimed.started_at

    async def test_reaping_many(self, store: JobStore) -> None:
        made = {each.id for each in await asyncio.gather(*(submit(store) for _ in range(450)))}
        await asyncio.gather(*(claim(store) for _ in made))
        reaped = await store.reap(time.time() + LATER)
        assert {each.id for each in reaped} == made
        assert len(reaped) == 450

    async def test_workers_are_known_while_their_hearts_beat(self, store: JobStore) -> None:
        state = WorkerState("a", "spot", ("emoji", "other"), 3, expires=100.0)
        await store.heartbeat(state)
        await store.heartbeat(WorkerState("b", "on-demand", (), 0, expires=50.0))
        assert [each.id for each in await store.workers(40.0)] == ["a", "b"]
        assert list(await store.workers(60.0)) == [state]
        await store.heartbeat(WorkerState("a", "spot", ("emoji",), 1, expires=200.0))
        assert [each.free for each in await store.workers(60.0)] == [1]
        assert list(await store.workers(300.0)) == []

    async def test_models_are_known_while_nobody_serves_them(self, store: JobStore) -> None:
        told = ToldModel("emoji", {"limits": {"max_steps": 50}}, ("a", "b"), True, expires=100.0)
        await store.tell_model(told)
        await store.tell_model(ToldModel("dog", {}, (), False, expires=50.0))
        assert [each.name for each in await store.told_models(40.0)] == ["dog", "emoji"]
        assert list(await store.told_models(60.0)) == [told]
        other = ToldModel("emoji", {}, ("c",), False, expires=200.0)
        await store.tell_model(other)
        assert list(await store.told_models(150.0)) == [other]
        assert list(await store.told_models(300.0)) == []

    async def test_a_claim_of_each_job_is_one(self, store: JobStore) -> None:
        """Many workers at once: nobody gets what another one has."""
        made = {(await submit(store)).id for _ in range(60)}
        claims = await asyncio.gather(
            *(store.claim(f"w{index}", "emoji", ALL, 60.0) for index in range(100))
        )
        claimed = [each.id for each in claims if each is not None]
        assert len(claimed) == 60
        assert set(claimed) == made

    async def test_a_job_whose_claim_is_abandoned_goes_to_the_next(self, store: JobStore) -> None:
        made = await submit(store)
        for rounds in range(30):
            claiming = asyncio.create_task(store.claim("gone", "emoji", ALL, 60.0))
            for _ in range(rounds):
                await asyncio.sleep(0)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            if not claiming.cancelled():
                returned = await store.hand_back(claiming.result() or made, blamed=False)
                assert returned is not None
            found = await store.get(made.id)
            assert (found.status, found.attempts) == (Status.PENDING, 0)
        assert (await claim(store)).id == made.id
