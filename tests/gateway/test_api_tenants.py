"""Keys, rates and bounds of tenants."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from api_rig import claim, client_of, finish, make_gateway, picture
from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import RateLimitError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Lane
from diffusion_gateway.tenants import TenantSettings
from tenants_rig import PUBLIC, key_of, submit


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with make_gateway(tmp_path, **PUBLIC) as made:
        yield made


async def test_a_key_is_random_and_only_its_hash_is_kept(gateway, tmp_path):
    record, key = await gateway.tenants.create("acme", TenantSettings())
    _, other = await gateway.tenants.create("acme", TenantSettings())
    assert re.fullmatch(r"td_[A-Za-z0-9_-]{43}", key)
    assert key != other
    assert record.hash == hashlib.sha256(key.encode()).hexdigest()
    for file in tmp_path.iterdir():
        assert key[3:].encode() not in file.read_bytes()
    assert [known.tenant for known in await gateway.tenants.keys()] == ["acme", "acme"]


@pytest.mark.parametrize("name", ["", "ACME", "_tickets", "a b", "a~b", "x" * 65, "../x"])
async def test_a_tenants_name_is_plain(gateway, name):
    with pytest.raises(ConfigError):
        await gateway.tenants.create(name, TenantSettings())


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dGRfOng=",
        "Bearer td_" + "x" * 43,
        "Bearer td_short",
        "Bearer _tickets:1",
        "Bearer " + "x" * 10_000,
        "Bearer td_\u00e9",
    ],
)
async def test_without_a_known_key_nothing_is_answered(client, authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    for method, path in (
        ("POST", "/generate"),
        ("GET", "/jobs"),
        ("GET", "/jobs/x"),
        ("DELETE", "/jobs/x"),
        ("GET", "/jobs/x/events"),
        ("GET", "/jobs/x/images/0"),
        ("POST", "/tickets"),
        ("GET", "/models"),
    ):
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["code"] == "unauthorized"


async def test_health_needs_no_key(client):
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code in (200, 503)


async def test_a_key_works_until_it_is_revoked(client, gateway):
    headers = await key_of(gateway, "acme")
    assert (await submit(client, headers)).status_code == 202
    (record,) = await gateway.tenants.keys()
    assert await gateway.tenants.revoke(record.id)
    assert not await gateway.tenants.revoke(record.id)
    assert (await submit(client, headers)).status_code == 401


async def test_the_secret_of_tickets_is_no_key_that_can_be_revoked(gateway):
    assert await gateway.tenants.keys() == []
    (secret,) = await gateway.store.keys()
    assert not await gateway.tenants.revoke(secret.id)


async def test_another_tenants_job_is_as_unknown_as_none(client, gateway):
    ours, theirs = await key_of(gateway, "ours"), await key_of(gateway, "theirs")
    job_id = (await submit(client, ours)).json()["job_id"]
    await finish(gateway, await claim(gateway))
    unknown = "0" * 32
    for method, path in (
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}/events"),
        ("GET", "/jobs/{}/images/0"),
        ("GET", "/jobs/{}/thumbnails/0"),
        ("DELETE", "/jobs/{}"),
    ):
        answers = [
            await client.request(method, path.format(one), headers=theirs)
            for one in (job_id, unknown)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json() == answers[1].json()
    assert (await client.get("/jobs", headers=theirs)).json()["jobs"] == []
    ticket = await client.post("/tickets", json={"job_id": job_id}, headers=theirs)
    assert ticket.status_code == 404
    assert (await client.get(f"/jobs/{job_id}", headers=ours)).status_code == 200


async def test_idempotency_keys_are_a_tenants_own(client, gateway):
    ours, theirs = await key_of(gateway, "ours"), await key_of(gateway, "theirs")
    key = {"idempotency-key": "same"}
    first = await submit(client, ours | key)
    second = await submit(client, theirs | key, prompt="another")
    assert second.status_code == 202
    assert first.json()["job_id"] != second.json()["job_id"]


async def test_a_tenants_rate_is_its_own_and_retry_after_is_true(client, gateway):
    slow = await key_of(gateway, "slow", requests_per_second=0.5, burst=3)
    other = await key_of(gateway, "other")
    codes = [(await submit(client, slow)).status_code for _ in range(5)]
    assert codes == [202, 202, 202, 429, 429]
    refused = await submit(client, slow)
    assert refused.json()["code"] == "rate_limited"
    assert int(refused.headers["retry-after"]) == 2
    assert (await submit(client, other)).status_code == 202
    # Reading has a rate of its own: a tenant that may not submit can still look.
    assert (await client.get("/jobs", headers=slow)).status_code == 200


async def test_what_retry_after_says_is_enough(gateway):
    await gateway.tenants.create("acme", TenantSettings(requests_per_second=20, burst=1))
    tenant = gateway.tenants.named("acme")
    tenant = type(tenant)(
        **{name: getattr(tenant, name) for name in tenant.__slots__}
        | {"requests_per_second": 20.0, "burst": 1}
    )
    await gateway.tenants.throttle(tenant)
    with pytest.raises(RateLimitError) as refused:
        await gateway.tenants.throttle(tenant)
    await asyncio.sleep(refused.value.retry_after)
    await gateway.tenants.throttle(tenant)


async def test_reading_in_a_loop_is_bounded_per_tenant(client, gateway):
    slow = await key_of(gateway, "slow", requests_per_second=0.1, burst=1)
    codes = [(await client.get("/jobs", headers=slow)).status_code for _ in range(15)]
    assert codes.count(200) in (10, 11)
    assert codes[-1] == 429
    assert (await client.get("/jobs", headers=await key_of(gateway, "other"))).status_code == 200


async def test_a_rate_is_counted_before_the_body_is_read(gateway):
    headers = await key_of(gateway, "slow", requests_per_second=0.01, burst=1)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        raise AssertionError("the body was read")

    async with client_of(gateway) as client:
        await submit(client, headers)
        answer = await client.post(
            "/generate", content=never(), headers=headers | {"content-type": "application/json"}
        )
    assert answer.status_code == 429


async def test_a_tenant_has_so_many_unfinished_jobs_and_no_more(client, gateway):
    headers = await key_of(gateway, "small", max_active=2)
    assert [(await submit(client, headers)).status_code for _ in range(3)] == [202, 202, 429]
    refused = await submit(client, headers)
    assert refused.json()["code"] == "too_many_jobs"
    assert int(refused.headers["retry-after"]) >= 1
    await finish(gateway, await claim(gateway))
    assert (await submit(client, headers)).status_code == 202


async def test_retry_after_of_a_full_queue_is_the_next_expected_end(tmp_path):
    class Expects:
        async def interval(self, job):
            return SimpleNamespace(low=10.0, expected=17.2, high=30.0)

    made = make_gateway(tmp_path, estimator=Expects(), max_waiting=1)
    async with made as gateway, client_of(gateway) as client:
        await submit(client)
        await claim(gateway)
        await submit(client)
        answer = await submit(client)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "18")


async def test_a_flood_of_one_tenant_leaves_the_other_its_turn(client, gateway):
    """Fifty jobs of the one wait; the other's five are taken every second time."""
    flood, other = await key_of(gateway, "flood"), await key_of(gateway, "other")
    for _ in range(50):
        await submit(client, flood)
    mine = {(await submit(client, other)).json()["job_id"] for _ in range(5)}
    taken = [
        (await gateway.store.claim("worker", "emoji", tuple(Lane), 30.0)).id for _ in range(12)
    ]
    assert mine <= set(taken)


async def test_weights_are_kept_with_the_key(gateway, client):
    heavy, light = await key_of(gateway, "heavy", weight=4), await key_of(gateway, "light")
    for _ in range(30):
        await submit(client, light)
        await submit(client, heavy)
    first = [
        (await gateway.store.claim("worker", "emoji", tuple(Lane), 30.0)).tenant for _ in range(20)
    ]
    assert first.count("heavy") >= 14


async def test_a_tenant_may_be_without_cache(client, gateway):
    fresh, cached = await key_of(gateway, "fresh", cache=False), await key_of(gateway, "cached")
    one = (await submit(client, fresh, seed=1)).json()["job_id"]
    two = (await submit(client, cached, seed=1)).json()["job_id"]
    three = (await submit(client, cached, seed=1, cache=False)).json()["job_id"]
    four = (await submit(client, cached)).json()["job_id"]
    kept = [bool((await gateway.store.get(job)).cache_keys) for job in (one, two, three, four)]
    assert kept == [False, True, False, False]


async def test_a_result_from_the_cache_is_there_at_once(client, gateway):
    headers = await key_of(gateway, "acme")
    first = (await submit(client, headers, seed=5)).json()
    job = await claim(gateway)
    await finish(gateway, job)
    done = await gateway.store.get(job.id)
    await gateway.cache.keep(done, done.result)
    second = (await submit(client, headers, seed=5)).json()
    assert second["job_id"] != first["job_id"]
    assert (second["status"], second["cached"]) == ("completed", True)
    assert (await client.get(second["image_url"])).content == picture(5)
    assert await claim(gateway) is None
