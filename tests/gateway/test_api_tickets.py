"""Tickets: links that open what a key may see; hosts and origins that are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_rig import OWN, claim, client_of, finish, make_gateway, picture
from diffusion_gateway.errors import UnauthorizedError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.stores.store import MAX_ATTEMPTS
from diffusion_gateway.tickets import Tickets
from tenants_rig import PUBLIC, key_of, submit


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with make_gateway(tmp_path, **PUBLIC) as made:
        yield made


async def test_links_to_pictures_need_no_header_and_open_nothing_else(client, gateway):
    headers = await key_of(gateway, "acme")
    await submit(client, headers, seed=3)
    await finish(gateway, job := await claim(gateway))
    other = (await submit(client, headers, seed=4)).json()["job_id"]
    await finish(gateway, await claim(gateway))
    document = (await client.get(f"/jobs/{job.id}", headers=headers)).json()
    image = document["images"][0]
    assert (await client.get(image["url"])).content == picture(3)
    assert (await client.get(image["thumbnail_url"])).headers["content-type"] == "image/jpeg"
    ticket = image["url"].partition("ticket=")[2]
    for path in (
        f"/jobs/{other}/images/0?ticket={ticket}",
        f"/jobs/{job.id}/events?ticket={ticket}",
        f"/jobs/{job.id}/images/0?ticket={ticket[:-1]}0",
        f"/jobs/{job.id}/images/0?ticket={ticket.replace('acme', 'other')}",
        f"/jobs/{job.id}/images/0?ticket=",
        f"/jobs/{job.id}/images/0?ticket=a~b~c",
        f"/jobs/{job.id}/images/0?ticket=a~99999999999~{'0' * 64}",
        f"/jobs/{job.id}/images/0",
    ):
        assert (await client.get(path)).status_code == 401, path
    assert (await client.get(f"/jobs/{job.id}?ticket={ticket}")).status_code == 401
    # Another tenant's key makes no ticket good.
    stranger = await key_of(gateway, "stranger")
    for path, status in ((f"images/0?ticket={ticket[:-1]}0", 401), ("images/0", 404)):
        answer = await client.get(f"/jobs/{job.id}/{path}", headers=stranger)
        assert answer.status_code == status, path
    # The same link again, so that a browser's cache knows it.
    again = (await client.get(f"/jobs/{job.id}", headers=headers)).json()
    assert again["image_url"] == image["url"]


async def test_links_outlive_the_record(client, gateway):
    headers = await key_of(gateway, "acme")
    await submit(client, headers, seed=3)
    await finish(gateway, job := await claim(gateway))
    image = (await client.get(f"/jobs/{job.id}", headers=headers)).json()["images"][0]
    await gateway.store.expire(time.time() + 1, 10)
    assert (await client.get(f"/jobs/{job.id}", headers=headers)).status_code == 404
    assert (await client.get(image["url"])).content == picture(3)
    assert (await client.get(image["thumbnail_url"])).status_code == 200
    path = image["url"].partition("?")[0]
    assert (await client.get(path, headers=headers)).status_code == 404


async def test_the_last_attempts_picture_outlives_the_record_too(client, gateway):
    headers = await key_of(gateway, "acme")
    await submit(client, headers, seed=3)
    await claim(gateway)
    # The first loss of a worker is spared, so that there are more attempts than losses that count.
    await gateway.store.reap(time.time() + 1000)
    for _ in range(MAX_ATTEMPTS - 1):
        await gateway.store.hand_back(await claim(gateway), blamed=True)
    job = await claim(gateway)
    assert job.attempts == MAX_ATTEMPTS + 1
    await finish(gateway, job)
    image = (await client.get(f"/jobs/{job.id}", headers=headers)).json()["images"][0]
    await gateway.store.expire(time.time() + 1, 10)
    assert (await client.get(image["url"])).content == picture(3)
    assert (await client.get(image["thumbnail_url"])).status_code == 200


async def test_a_ticket_ends(gateway):
    tickets = gateway.tickets
    good = tickets.issue("watch", "acme", "job", time.time() + 60)
    assert await tickets.check(good, "watch", "job") == "acme"
    ended = tickets.issue("watch", "acme", "job", time.time() - 1)
    for ticket, purpose, job in (
        (ended, "watch", "job"),
        (good, "files", "job"),
        (good, "watch", "other"),
        (good.replace("acme", "evil"), "watch", "job"),
    ):
        with pytest.raises(UnauthorizedError):
            await tickets.check(ticket, purpose, job)


async def test_two_gateways_honour_each_others_tickets(gateway):
    """Even if both found no secret and each made one."""
    first, second = Tickets(gateway.store), Tickets(gateway.store)
    await gateway.store.revoke_key((await gateway.store.keys())[0].id)
    await asyncio.gather(first.open(), second.open())
    for one, other in ((first, second), (second, first)):
        ticket = one.issue("watch", "acme", "job", time.time() + 60)
        other._read_at = 0.0
        assert await other.check(ticket, "watch", "job") == "acme"


async def test_without_keys_only_loopback_names_are_answered(tmp_path):
    """A page whose name was pointed at 127.0.0.1 is no page of ours."""
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"):
            assert (await client.get("/jobs", headers={"host": host})).status_code == 200, host
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
            answer = await client.get("/jobs", headers={"host": host})
            assert (answer.status_code, answer.json()["field"]) == (421, "Host"), host


async def test_the_public_name_is_answered_too(tmp_path):
    made = make_gateway(tmp_path, auth="off", public_url="https://pictures.example/api/")
    async with made as gateway, client_of(gateway) as client:
        headers = {"host": "pictures.example", "origin": "https://pictures.example"}
        answer = await submit(client, headers)
        assert answer.status_code == 202
        assert answer.headers["location"].startswith("https://pictures.example/api/jobs/")
        assert answer.json()["links"]["websocket"].startswith("wss://pictures.example/api/ws/")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9000", "http://[", "http://a]b"]
)
async def test_pages_of_other_origins_are_refused(tmp_path, origin):
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        answer = await submit(client, {"origin": origin})
        assert (answer.status_code, answer.json()["field"]) == (403, "Origin")
        assert (await submit(client, {"origin": OWN})).status_code == 202


async def test_allowed_origins_may_read_answers(tmp_path):
    page = "https://page.example"
    made = make_gateway(tmp_path, allowed_origins=[page])
    async with made as gateway, client_of(gateway) as client:
        answer = await submit(client, {"origin": page})
        assert answer.status_code == 202
        assert answer.headers["access-control-allow-origin"] == page
        asked = await client.options(
            "/generate",
            headers={
                "origin": page,
                "access-control-request-method": "POST",
                "access-control-request-headers": "idempotency-key",
            },
        )
        assert asked.status_code == 200
