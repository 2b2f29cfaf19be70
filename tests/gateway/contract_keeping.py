"""Contract: results that were drawn before, API keys, rates."""

from __future__ import annotations

import time

import pytest

from contract_jobs import OPEN, job, result, submit
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.stores.store import JobStore, KeyRecord


def far() -> float:
    return time.time() + 1000.0


class KeepingContract:
    """Runs over the fixture `store`."""

    async def test_a_result_is_found_until_it_is_out_of_date(self, store: JobStore) -> None:
        expires = far()
        assert await store.cache_get("k", time.time()) is None
        assert await store.cache_put("k", result("a"), expires, 1000) == []
        assert await store.cache_get("k", time.time()) == result("a")
        assert await store.cache_get("k", expires + 1.0) is None
        assert await store.cache_drop("k") == result("a")
        assert await store.cache_drop("k") is None
        assert await store.cache_get("k", time.time()) is None

    async def test_a_new_result_replaces_the_old_one(self, store: JobStore) -> None:
        await store.cache_put("k", result("a"), far(), 150)
        assert await store.cache_put("k", result("b"), far(), 150) == [result("a")]
        assert await store.cache_get("k", time.time()) == result("b")
        assert await store.cache_put("other", result("c", size=50), far(), 150) == []

    async def test_the_least_recently_used_go_first(self, store: JobStore) -> None:
        for name in "abc":
            await store.cache_put(name, result(name), far(), 300)
        await store.cache_get("a", time.time() + 10.0)
        assert await store.cache_put("d", result("d", size=150), far(), 300) == [
            result("b"),
            result("c"),
        ]
        kept = [name for name in "abcd" if await store.cache_get(name, time.time())]
        assert kept == ["a", "d"]

    async def test_what_is_out_of_date_goes_before_what_is_not(self, store: JobStore) -> None:
        await store.cache_put("fresh", result("fresh"), far(), 300)
        await store.cache_put("old", result("old"), time.time() - 1.0, 300)
        assert await store.cache_put("new", result("new"), far(), 300) == [result("old")]

    async def test_what_is_too_large_comes_back(self, store: JobStore) -> None:
        await store.cache_put("k", result("a"), far(), 150)
        large = result("b", size=200)
        assert await store.cache_put("k", large, far(), 150) == [result("a"), large]
        assert await store.cache_get("k", time.time()) is None

    async def test_keys_are_found_by_their_hashes(self, store: JobStore) -> None:
        one = KeyRecord("1", "hash one", "one", 2.0, {"weight": 2.5})
        other = KeyRecord("2", "hash other", "other", 1.0, {})
        for record in (one, other):
            await store.put_key(record)
        assert await store.find_key("hash one") == one
        assert await store.find_key("hash") is None
        assert list(await store.keys()) == [other, one]
        assert await store.revoke_key("1")
        assert not await store.revoke_key("1")
        assert await store.find_key("hash one") is None
        replaced = KeyRecord("2", "new hash", "other", 1.0, {})
        await store.put_key(replaced)
        assert await store.find_key("hash other") is None
        assert await store.find_key("new hash") == replaced

    async def test_tokens(self, store: JobStore) -> None:
        now = time.time()
        burst = [await store.take_token("b", 2.0, 5.0, now) for _ in range(5)]
        assert burst == [0.0] * 5
        assert await store.take_token("b", 2.0, 5.0, now) == pytest.approx(0.5, abs=1e-5)
        assert await store.take_token("other", 2.0, 5.0, now) == 0.0
        assert await store.take_token("b", 2.0, 5.0, now + 0.4) == pytest.approx(0.1, abs=1e-5)
        assert await store.take_token("b", 2.0, 5.0, now + 0.5001) == 0.0
        assert await store.take_token("b", 2.0, 5.0, now + 0.5001) > 0.4
        later = [await store.take_token("b", 2.0, 5.0, now + 100.0) for _ in range(6)]
        assert [wait > 0 for wait in later] == [False] * 5 + [True]

    async def test_a_clock_that_is_set_back_empties_a_bucket_and_no_more(
        self, store: JobStore
    ) -> None:
        now = time.time()
        assert await store.take_token("b", 2.0, 5.0, now) == 0.0
        earlier = now - 3600.0
        assert await store.take_token("b", 2.0, 5.0, earlier) == pytest.approx(0.5, abs=1e-5)
        assert await store.take_token("b", 2.0, 5.0, earlier + 0.5001) == 0.0

    async def test_a_store_that_is_open_can_take_jobs(self, store: JobStore) -> None:
        await store.ping()

    async def test_a_closed_store_says_so(self, store: JobStore) -> None:
        made = await submit(store)
        await store.close()
        await store.close()
        for call in (
            store.ping(),
            store.get(made.id),
            store.submit(job(), OPEN),
            store.claim("w", "emoji", (made.lane,), 1.0),
            store.depths(),
            store.workers(0.0),
            store.keys(),
        ):
            with pytest.raises(StoreUnavailableError):
                await call
        await store.open()
        assert await store.get(made.id) == made
