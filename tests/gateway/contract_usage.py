"""Contract: what was spent, by quarters of an hour."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.stores.usage import Usage, slot_of

SLOT = slot_of(1_800_000_000.0)

ONE = Usage(
    slot=SLOT,
    tenant="acme",
    model="emoji",
    bucket="used",
    machine="a10g",
    purchase="spot",
    currency="USD",
    nanos=1_500,
    micros=2_000_000,
    jobs=1,
    images=2,
)


class UsageContract:
    """Runs over the fixture `store`."""

    async def test_usage_adds_up(self, store: JobStore) -> None:
        now = time.time()
        assert await store.charge("a", ONE, now)
        assert await store.charge("b", replace(ONE, nanos=10**15, images=0), now)
        assert await store.charge("c", replace(ONE, bucket="lost", tenant="_service"), now)
        found = {(one.tenant, one.bucket): one for one in await store.usage(SLOT, SLOT + 1)}
        assert found["acme", "used"] == replace(
            ONE, nanos=10**15 + 1_500, micros=4_000_000, jobs=2, images=2
        )
        assert found["_service", "lost"].nanos == 1_500
        assert len(found) == 2

    async def test_nothing_is_charged_twice(self, store: JobStore) -> None:
        now = time.time()
        told = await asyncio.gather(*(store.charge("a", ONE, now) for _ in range(20)))
        assert sum(told) == 1
        assert await store.spent("acme", "USD", SLOT, SLOT + 1) == 1_500

    async def test_spending_is_a_tenants_in_a_currency_and_a_period(self, store: JobStore) -> None:
        now = time.time()
        for number in range(4):
            await store.charge(f"slot {number}", replace(ONE, slot=SLOT + number), now)
        await store.charge("other", replace(ONE, tenant="other"), now)
        await store.charge("euros", replace(ONE, currency="EUR"), now)
        assert await store.spent("acme", "USD", SLOT + 1, SLOT + 3) == 3_000
        assert await store.spent("acme", "EUR", SLOT, SLOT + 10) == 1_500
        assert await store.spent("nobody", "USD", SLOT, SLOT + 10) == 0

    async def test_a_month_of_slots_is_summed_exactly(self, store: JobStore) -> None:
        now = time.time()
        await asyncio.gather(
            *(
                store.charge(str(number), replace(ONE, slot=SLOT + number, nanos=10**9 + 1), now)
                for number in range(0, 2976, 3)
            )
        )
        assert await store.spent("acme", "USD", SLOT, SLOT + 2976) == 992 * (10**9 + 1)

    async def test_old_usage_is_forgotten(self, store: JobStore) -> None:
        now = time.time()
        await store.charge("old", ONE, now)
        await store.charge("new", replace(ONE, slot=SLOT + 1), now)
        await store.forget_usage(SLOT + 1)
        assert [one.slot for one in await store.usage(0, SLOT + 10)] == [SLOT + 1]
        assert await store.spent("acme", "USD", 0, SLOT + 10) == 1_500
