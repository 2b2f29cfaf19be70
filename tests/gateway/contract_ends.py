"""Contract: ends are recorded once; what shares a generation."""

from __future__ import annotations

import asyncio
import time

import pytest

from contract_jobs import (
    OPEN,
    WORK,
    claim,
    drained,
    ended,
    job,
    result,
    submit,
    under_way,
)
from diffusion_core.errors import ModelError
from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Job, Lane, Priority, Status, Webhook
from diffusion_gateway.stores.store import JobStore, Position

KEY = {"i": "one key"}
ERROR = ModelError("the pipeline failed").problem()
TOLD = Webhook(url="https://example.org/", events=("completed",))


async def family(store: JobStore, count: int = 2, **changes: object) -> list[Job]:
    """A job and those that follow it."""
    made = [await submit(store, cache_keys=KEY, **changes) for _ in range(count + 1)]
    assert [each.follows for each in made] == [None] + [made[0].id] * count
    return made


async def standing(store: JobStore, jobs: list[Job]) -> list[tuple[Status, str | None]]:
    return [((found := await store.get(each.id)).status, found.follows) for each in jobs]


class EndContract:
    """Runs over the fixture `store`."""

    async def test_a_completed_job(self, store: JobStore) -> None:
        claimed = await under_way(store)
        assert await store.end(claimed, Status.COMPLETED, result=result())
        found = await store.get(claimed.id)
        assert (found.status, found.result, found.progress) == (Status.COMPLETED, result(), 1.0)
        assert found.ended_at is not None
        assert found.ended_at >= (found.started_at or 0.0)

    async def test_a_failed_job(self, store: JobStore) -> None:
        claimed = await under_way(store)
        await store.progress(claimed, 4)
        assert await store.end(claimed, Status.FAILED, error=ERROR)
        found = await store.get(claimed.id)
        assert (found.status, found.error, found.step) == (Status.FAILED, ERROR, 4)

    async def test_an_end_is_recorded_once(self, store: JobStore) -> None:
        claimed = await under_way(store)
        assert await store.end(claimed, Status.COMPLETED, result=result("a"))
        found = await store.get(claimed.id)
        assert not await store.end(claimed, Status.FAILED, error=ERROR)
        assert await store.hand_back(claimed, blamed=True) is None
        assert not await store.complete_cached(claimed.id, result("b"))
        assert await store.cancel(claimed.id) == found
        assert await store.get(claimed.id) == found

    async def test_an_end_told_again_is_still_that_end(self, store: JobStore) -> None:
        """A worker whose answer was lost asks again, and must not throw its pictures away."""
        claimed = await under_way(store, webhook=TOLD)
        assert await store.end(claimed, Status.COMPLETED, result=result("a"))
        found = await store.get(claimed.id)
        assert await store.end(claimed, Status.COMPLETED, result=result("b"))
        assert await store.get(claimed.id) == found

    async def test_cancelling(self, store: JobStore) -> None:
        waiting, other = await submit(store), await submit(store)
        for made in (waiting, await claim(store, worker="v")):
            cancelled = await store.cancel(made.id)
            assert cancelled.status is Status.CANCELLED
            assert cancelled.ended_at is not None
            assert await store.cancel(made.id) == cancelled == await store.get(made.id)
        assert await drained(store) == ([] if made.id == other.id else [other.id])

    @pytest.mark.parametrize("rounds", [1000])
    async def test_cancelling_races_with_the_end(self, store: JobStore, rounds: int) -> None:
        """Each job has one end, and everybody who asked was told of that one."""
        made = await asyncio.gather(*(submit(store) for _ in range(rounds)))
        claimed = [await claim(store) for _ in made]

        async def race(index: int, each: Job) -> None:
            order = [
                store.end(each, Status.COMPLETED, result=result()),
                store.cancel(each.id),
            ]
            if index % 2:
                cancelled, recorded = await asyncio.gather(*reversed(order))
            else:
                recorded, cancelled = await asyncio.gather(*order)
            found = await store.get(each.id)
            assert isinstance(cancelled, Job)
            assert cancelled.status is found.status
            assert recorded is (found.status is Status.COMPLETED)
            events = [event async for event in store.watch(each.id)]
            assert [event.kind for event in events] == [found.status.value]

        await asyncio.gather(*(race(index, each) for index, each in enumerate(claimed)))

    async def test_deleting(self, store: JobStore) -> None:
        done, waiting = await ended(store), await submit(store)
        claimed = await claim(store, worker="v")
        assert claimed.id == waiting.id
        assert await store.delete(done.id) == done
        assert (await store.delete(claimed.id)).status is Status.CANCELLED
        for gone in (done, claimed):
            with pytest.raises(UnknownJobError):
                await store.get(gone.id)
        assert await store.list(None, None, None, 10) == []
        assert await store.depths() == []
        assert await store.expire(time.time() + 10.0, 10) == []

    # Sharing a generation.

    async def test_followers_complete_with_the_job_they_follow(self, store: JobStore) -> None:
        first, *others = await family(store)
        assert [depth.waiting for depth in await store.depths()] == [1]
        claimed = await claim(store)
        assert await store.claim("w", "emoji", tuple(Lane), 60.0) is None
        late = await submit(store, cache_keys={"other": "unknown", **KEY})
        assert late.follows == first.id
        assert await store.end(claimed, Status.COMPLETED, result=result(first.id))
        for each in (*others, late):
            found = await store.get(each.id)
            assert found.status is Status.COMPLETED
            assert found.result is not None
            assert found.result.pictures == result(first.id).pictures
            assert (found.result.cached, found.result.device_seconds) == (True, 0.0)
            assert found.ended_at is not None
        assert (await submit(store, cache_keys=KEY)).follows is None

    async def test_pictures_stay_while_anybody_shows_them(self, store: JobStore) -> None:
        first, *others = await family(store)
        await store.end(await claim(store), Status.COMPLETED, result=result(first.id))
        assert {(await store.get(each.id)).follows for each in others} == {first.id}
        assert await store.shares_files(first.id, but=others[0].id)
        await store.delete(first.id)
        assert await store.shares_files(first.id, but=others[0].id)
        assert await store.shares_files(first.id, but=first.id)
        await store.delete(others[0].id)
        assert not await store.shares_files(first.id, but=others[1].id)
        await store.delete(others[1].id)
        assert not await store.shares_files(first.id, but=first.id)

    async def test_who_was_cancelled_while_following_shows_no_pictures(
        self, store: JobStore
    ) -> None:
        first, other = await family(store, 1)
        assert (await store.cancel(other.id)).follows is None
        await store.end(await claim(store), Status.COMPLETED, result=result(first.id))
        assert not await store.shares_files(first.id, but=first.id)
        assert (await store.get(other.id)).status is Status.CANCELLED

    async def test_when_it_fails_the_next_one_draws(self, store: JobStore) -> None:
        first, second, third = await family(store)
        await store.end(await claim(store), Status.FAILED, error=ERROR)
        assert await standing(store, [first, second, third]) == [
            (Status.FAILED, None),
            (Status.PENDING, None),
            (Status.PENDING, second.id),
        ]
        assert (await submit(store, cache_keys=KEY)).follows == second.id
        claimed = await claim(store)
        assert claimed.id == second.id
        await store.end(claimed, Status.COMPLETED, result=result(second.id))
        assert (await store.get(third.id)).result == result(second.id, cached=True).model_copy(
            update={"device_seconds": 0.0}
        )

    async def test_who_is_cancelled_hands_on_its_place(self, store: JobStore) -> None:
        first, second, third = await family(store)
        others = [await submit(store) for _ in range(3)]
        assert await store.position(third) == Position(0, 0.0)
        await store.cancel(first.id)
        assert await store.position(second) == await store.position(third) == Position(0, 0.0)
        assert await store.position(others[0]) == Position(1, WORK)
        assert await drained(store) == [second.id, *(each.id for each in others)]

    async def test_who_is_cancelled_while_drawn_hands_on_its_turn(self, store: JobStore) -> None:
        first, second, _ = await family(store)
        await claim(store)
        await submit(store, lane=Lane.URGENT)
        await store.delete(first.id)
        assert (await claim(store)).id == second.id

    async def test_many_followers_one_after_another(self, store: JobStore) -> None:
        made = await family(store, 20)
        for each in made[:-1]:
            await store.cancel(each.id)
        assert await drained(store) == [made[-1].id]

    async def test_a_follower_in_a_hurry_takes_all_along(self, store: JobStore) -> None:
        first = await submit(store, cache_keys=KEY, lane=Lane.LOW)
        other = await submit(store, work=1.0)
        await submit(store, cache_keys=KEY, lane=Lane.URGENT, priority=Priority.HIGH)
        assert await drained(store) == [first.id, other.id]

    async def test_an_heir_is_as_urgent_as_those_who_follow_it(self, store: JobStore) -> None:
        await submit(store, cache_keys=KEY)
        claimed = await claim(store)
        heir = await submit(store, cache_keys=KEY, lane=Lane.LOW)
        await submit(store, cache_keys=KEY, lane=Lane.URGENT)
        await submit(store, work=1.0)
        await store.end(claimed, Status.FAILED, error=ERROR)
        assert (await claim(store)).id == heir.id

    async def test_a_job_handed_back_keeps_its_followers(self, store: JobStore) -> None:
        first, second = await family(store, 1)
        await store.hand_back(await claim(store), blamed=True)
        assert (await store.get(second.id)).follows == first.id
        await store.end(await claim(store), Status.COMPLETED, result=result())
        assert (await store.get(second.id)).status is Status.COMPLETED

    async def test_a_result_from_the_cache_ends_a_waiting_job(self, store: JobStore) -> None:
        first, second = await family(store, 1)
        assert await store.complete_cached(first.id, result("c"))
        for each in (first, second):
            found = await store.get(each.id)
            assert found.status is Status.COMPLETED
            assert found.result is not None
            assert (found.result.cached, found.attempts) == (True, 0)
        assert not await store.complete_cached(first.id, result("d"))
        assert await store.depths() == []
        claimed = await under_way(store)
        assert not await store.complete_cached(claimed.id, result("c"))

    async def test_a_job_of_another_registration_draws_under_its_own_name(
        self, store: JobStore
    ) -> None:
        first = await submit(store, cache_keys=KEY)
        other = await submit(store, cache_keys=KEY, model="twin")
        assert other.follows == first.id
        await store.cancel(first.id)
        assert await drained(store) == []
        assert await drained(store, model="twin") == [other.id]

    async def test_submitting_while_the_first_ends(self, store: JobStore) -> None:
        """Whoever comes at that moment follows it or draws; nobody waits for what has ended."""
        await submit(store, cache_keys=KEY)
        claimed = await claim(store)
        end = store.end(claimed, Status.COMPLETED, result=result())
        more = [store.submit(job(cache_keys=KEY), OPEN) for _ in range(20)]
        await asyncio.gather(*more[:10], end, *more[10:])
        await drained_and_ended(store)
        found = await store.list(None, None, None, 100)
        assert {each.status for each in found} == {Status.COMPLETED}


async def drained_and_ended(store: JobStore) -> None:
    while (claimed := await store.claim("w", "emoji", tuple(Lane), 60.0)) is not None:
        await store.end(claimed, Status.COMPLETED, result=result())
