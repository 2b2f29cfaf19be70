"""What a client is told of costs: in the document, in headers, and when its budget is spent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from api_rig import claim, finish, make_gateway
from costs_rig import budget_file, priced
from diffusion_gateway.costs.spending import Spent
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Cost, Status
from jobs_rig import problem, submit


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    budgets = budget_file(
        tmp_path, each={"amount": 0.01, "period": "day", "tenant": "*", "hard": True}
    )
    async with make_gateway(tmp_path, **priced(tmp_path, budgets_file=budgets)) as made:
        yield made


COST = Cost(
    nanos=417_000, currency="USD", machine="gpu", purchase="spot", prices_as_of="2026-11-22"
)


async def draw(gateway: Gateway) -> None:
    job = await claim(gateway)
    assert job is not None
    assert await finish(gateway, job, cost=COST)


async def test_the_cost_is_in_the_document_and_in_headers(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    submitted = await submit(client, seed=7)
    assert submitted["cost"] is None
    await draw(gateway)
    answer = await client.get(f"/jobs/{submitted['job_id']}")
    assert answer.json()["cost"] == {
        "amount": "0.000417000",
        "currency": "USD",
        "machine": "gpu",
        "purchase": "spot",
        "prices_as_of": "2026-11-22",
    }
    assert answer.headers["X-Cost"] == "0.000417000 USD"
    assert answer.headers["X-Device-Seconds"] == "0.500000"


async def test_a_tenant_over_its_budget_hears_the_amounts(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    key = {"Idempotency-Key": "one"}
    kept = await client.post("/generate", json={"prompt": "red heart"}, headers=key)
    job = await gateway.store.get(kept.json()["job_id"])
    accounts = gateway.accounts
    quote = accounts.tariff.machine(gateway.settings.endpoints[0])
    await accounts.charge(job, "used", Spent(12.0, quote.nanos(12.0)), quote, "a")
    refused = await client.post("/generate", json={"prompt": "blue heart"})
    document = problem(refused, 402)
    assert document["code"] == "budget_spent"
    assert document["bound"]["spent"] == "0.012000"
    assert document["bound"]["limit"] == "0.010000"
    assert document["bound"]["currency"] == "USD"
    assert document["bound"]["resets_at"].endswith("T00:00:00Z")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    # A submission that was kept before is found, and what was accepted is drawn.
    again = await client.post("/generate", json={"prompt": "red heart"}, headers=key)
    assert again.status_code == 202
    assert again.headers["Idempotency-Replayed"] == "true"
    await draw(gateway)
    assert (await gateway.store.get(job.id)).status is Status.COMPLETED
    count = gateway.metrics.registry.get_sample_value(
        "diffusion_gateway_budget_refusals_total", {"budget": "each"}
    )
    assert count == 1


async def test_openai_clients_hear_it_in_their_own_words(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    job = await gateway.store.get((await submit(client))["job_id"])
    quote = gateway.accounts.tariff.machine(gateway.settings.endpoints[0])
    await gateway.accounts.charge(job, "used", Spent(12.0, quote.nanos(12.0)), quote, "a")
    refused = await client.post("/v1/images/generations", json={"prompt": "red heart"})
    assert refused.status_code == 402
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert refused.json()["error"]["code"] == "budget_spent"


async def test_what_comes_from_the_cache_costs_nothing(
    gateway: Gateway, client: httpx2.AsyncClient
) -> None:
    first = await submit(client, seed=7)
    second = await submit(client, seed=7)
    await draw(gateway)
    drawn = (await client.get(f"/jobs/{first['job_id']}")).json()
    shared = (await client.get(f"/jobs/{second['job_id']}")).json()
    assert (drawn["cached"], drawn["cost"]["amount"]) == (False, "0.000417000")
    assert (shared["cached"], shared["cost"]["amount"]) == (True, "0.000000000")
