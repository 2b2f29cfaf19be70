"""Contract: watchers hear what happens, each end included, and cost next to nothing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from contract_jobs import claim, ended, result, submit, under_way
from diffusion_gateway.job import Event, Status
from diffusion_gateway.stores.event_hub import KEPT
from diffusion_gateway.stores.store import JobStore


async def heard(events: AsyncIterator[Event], count: int | None = None) -> list[Event]:
    """The next events, or all until the end."""
    found = []
    async for event in events:
        found.append(event)
        if len(found) == count:
            break
    return found


def told(events: list[Event]) -> list[object]:
    """Events in short: the status, the step, or the kind of end."""
    return [event.data.get("status") or event.data.get("step") or event.kind for event in events]


class EventContract:
    """Runs over the fixture `store`."""

    async def test_a_watcher_hears_everything_in_order(self, store: JobStore) -> None:
        made = await submit(store)
        watching = asyncio.create_task(heard(store.watch(made.id)))
        await asyncio.sleep(0.05)
        claimed = await claim(store)
        for step in (1, 2, 3):
            await store.publish(made.id, "progress", {"step": step, "steps": 20})
        returned = await store.hand_back(claimed, blamed=False)
        assert returned is not None
        claimed = await claim(store)
        await store.publish(made.id, "preview", {"step": 4, "key": "previews/x/4"})
        await store.end(claimed, Status.COMPLETED, result=result())
        async with asyncio.timeout(10):
            events = await watching
        expected = ["pending", "processing", 1, 2, 3, "pending", "processing", 4, "completed"]
        assert told(events) == expected
        ids = [event.id for event in events]
        assert ids == sorted(set(ids))
        assert [event.last for event in events] == [False] * 8 + [True]
        assert events[7].kind == "preview"
        assert events[7].data == {"step": 4, "key": "previews/x/4"}

    async def test_watching_goes_on_after_the_event_that_was_heard_last(
        self, store: JobStore
    ) -> None:
        claimed = await under_way(store)
        for step in (1, 2, 3):
            await store.publish(claimed.id, "progress", {"step": step})
        first = await heard(store.watch(claimed.id), 3)
        again = await heard(store.watch(claimed.id, first[1].id), 2)
        assert told(again) == [2, 3]
        await store.end(claimed, Status.FAILED, error={})
        rest = await heard(store.watch(claimed.id, again[-1].id))
        assert told(rest) == ["failed"]
        assert await heard(store.watch(claimed.id, rest[-1].id)) == []
        assert await heard(store.watch(claimed.id, 10**15)) == []

    async def test_an_ended_job_has_its_end(self, store: JobStore) -> None:
        done, gone = await ended(store), await submit(store)
        await store.cancel(gone.id)
        await store.publish(done.id, "progress", {"step": 9})
        assert told(await heard(store.watch(done.id))) == ["completed"]
        assert told(await heard(store.watch(gone.id))) == ["cancelled"]

    async def test_older_events_go(self, store: JobStore) -> None:
        claimed = await under_way(store)
        for step in range(1, KEPT + 51):
            await store.publish(claimed.id, "progress", {"step": step})
        events = await heard(store.watch(claimed.id), KEPT)
        assert told(events) == list(range(51, KEPT + 51))

    async def test_a_watcher_that_never_reads_holds_nobody_up(self, store: JobStore) -> None:
        claimed = await under_way(store)
        idle = store.watch(claimed.id)
        await anext(idle)
        gc.collect()
        before = len(gc.get_objects())
        for step in range(1, 2001):
            await store.publish(claimed.id, "progress", {"step": step})
        gc.collect()
        assert len(gc.get_objects()) - before < 10 * KEPT
        await store.end(claimed, Status.COMPLETED, result=result())
        async with asyncio.timeout(10):
            events = await heard(idle)
        assert len(events) <= KEPT + 1
        assert events[-1].kind == "completed"

    async def test_many_watchers(self, store: JobStore) -> None:
        claimed = await under_way(store)
        watching = [asyncio.create_task(heard(store.watch(claimed.id))) for _ in range(1000)]
        await asyncio.sleep(0.2)
        for step in (1, 2, 3):
            await store.publish(claimed.id, "progress", {"step": step})
        await store.end(claimed, Status.COMPLETED, result=result())
        async with asyncio.timeout(20):
            heard_by_all = await asyncio.gather(*watching)
        assert all(told(events)[-1] == "completed" for events in heard_by_all)
        assert sum(told(events)[:2] == ["processing", 1] for events in heard_by_all) == 1000

    @pytest.mark.parametrize("wanted", ["delete", "cancel"])
    async def test_a_job_that_goes_tells_its_watchers(self, store: JobStore, wanted: str) -> None:
        made = await submit(store)
        watching = asyncio.create_task(heard(store.watch(made.id)))
        await asyncio.sleep(0.05)
        await getattr(store, wanted)(made.id)
        async with asyncio.timeout(10):
            assert told(await watching) == ["pending", "cancelled"]

    async def test_followers_hear_their_ends(self, store: JobStore) -> None:
        made = [await submit(store, cache_keys={"i": "k"}) for _ in range(3)]
        watching = [asyncio.create_task(heard(store.watch(each.id))) for each in made]
        await asyncio.sleep(0.05)
        claimed = await claim(store)
        await store.end(claimed, Status.COMPLETED, result=result())
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*watching)
        assert [told(events)[-1] for events in ends] == ["completed"] * 3

    async def test_cancellations_of_leased_jobs_are_heard(self, store: JobStore) -> None:
        listeners = [store.cancellations(), store.cancellations()]
        await asyncio.sleep(0.05)
        waiting = await submit(store)
        await store.cancel(waiting.id)
        taken = [await under_way(store) for _ in range(4)]
        await store.end(taken[0], Status.COMPLETED, result=result())
        await store.cancel(taken[0].id)
        await store.cancel(taken[1].id)
        await store.cancel(taken[1].id)
        await store.delete(taken[2].id)
        await store.hand_back(taken[3], blamed=True)
        for listener in listeners:
            async with asyncio.timeout(10):
                assert [await anext(listener) for _ in range(2)] == [taken[1].id, taken[2].id]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(listener), 0.1)

    async def test_ids_grow_over_a_restart(self, store: JobStore) -> None:
        claimed = await under_way(store)
        for step in range(1, 30):
            await store.publish(claimed.id, "progress", {"step": step})
        before = (await heard(store.watch(claimed.id), 30))[-1].id
        await store.close()
        await store.open()
        await store.cancel(claimed.id)
        events = await heard(store.watch(claimed.id, before))
        assert told(events)[-1] == "cancelled"
