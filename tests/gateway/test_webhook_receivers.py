"""Receivers of webhooks that fail, are gone, point elsewhere or hang, and what others suffer."""

from __future__ import annotations

import time

import pytest

from diffusion_gateway.gateway import Gateway
from diffusion_gateway.notify import courier as courier_module
from diffusion_gateway.notify import webhooks as webhooks_module
from diffusion_gateway.notify.courier import Courier
from webhook_receiver import Receiver, receiving
from webhooks_rig import (
    ALL,
    counted,
    ended,
    nothing_left,
    outcomes,
    telling,
    until,
)

pytestmark = pytest.mark.usefixtures("impatient")


async def test_a_receiver_that_fails_is_told_again_with_the_same_id(
    gateway: Gateway, receiver: Receiver
) -> None:
    receiver.answers = [500, 404, 302, 429, 200]
    async with telling(gateway):
        job = await ended(gateway, receiver.url)
        await receiver.until(5)
        await until(nothing_left, gateway)
    assert {got.headers["webhook-id"] for got in receiver.got} == {f"{job.id}.completed"}
    assert len(receiver.got) == 5
    assert await outcomes(gateway) == {"retried": 4, "delivered": 1}


async def test_it_ends_after_so_many_attempts(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answers = [503]
    async with telling(gateway, webhook_attempts=3):
        await ended(gateway, receiver.url)
        await until(counted, gateway, "given_up", 1)
        await until(nothing_left, gateway)
    assert len(receiver.got) == 3
    assert await outcomes(gateway) == {"retried": 2, "given_up": 1}


async def test_a_receiver_that_is_gone_for_good_is_left_alone(
    gateway: Gateway, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [410]
    async with telling(gateway):
        job = await ended(gateway, receiver.url)
        await until(counted, gateway, "refused", 1)
        await until(nothing_left, gateway)
    assert len(receiver.got) == 1
    assert job.id in caplog.text
    assert receiver.url not in caplog.text


async def test_redirects_are_not_followed(gateway: Gateway, receiver: Receiver) -> None:
    async with receiving() as other:
        receiver.answers, receiver.location = [302, 307, 308, 301], other.url
        async with telling(gateway, webhook_attempts=4):
            await ended(gateway, receiver.url)
            await until(counted, gateway, "given_up", 1)
        assert (len(receiver.got), other.connections) == (4, 0)


async def test_private_addresses_are_refused_at_once(gateway: Gateway, receiver: Receiver) -> None:
    async with telling(gateway, webhook_private_addresses=False):
        for host in ("127.0.0.1", "2130706433", "0177.0.0.1", "[::1]", "0.0.0.0", "localhost"):
            await ended(gateway, f"http://{host}:{receiver.port}/", *ALL)
        await until(counted, gateway, "refused", 6)
        await until(nothing_left, gateway)
    assert receiver.connections == 0
    assert await outcomes(gateway) == {"refused": 6}


async def test_many_ends_at_once_all_arrive_a_few_at_a_time(
    gateway: Gateway, receiver: Receiver
) -> None:
    receiver.delay_s = 0.001
    jobs = [await ended(gateway, receiver.url) for _ in range(150)]
    async with telling(gateway):
        await receiver.until(150)
        await until(nothing_left, gateway)
    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert sorted(ids) == sorted(f"{job.id}.completed" for job in jobs)
    assert receiver.most_open == 4
    assert receiver.connections == 4


async def test_a_receiver_that_hangs_does_not_delay_the_others(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "_WAITING_PER_HOST", 20)
    async with receiving() as hanging:
        hanging.answers = [0]
        for _ in range(60):
            await ended(gateway, hanging.url, *ALL)
        async with telling(gateway):
            await hanging.until(4)
            for _ in range(20):
                await ended(gateway, receiver.url)
            await until(counted, gateway, "delivered", 20)
            # Nobody had to wait for one of the four that hang to be given up.
            assert await outcomes(gateway) == {"delivered": 20}
            assert hanging.most_open == 4


async def test_a_receiver_that_hangs_is_given_up_in_time(
    gateway: Gateway, receiver: Receiver
) -> None:
    receiver.answers = [0, 0, 200]
    async with telling(gateway, webhook_timeout_s=0.1):
        await ended(gateway, receiver.url)
        await receiver.until(3)
        await until(nothing_left, gateway)
    assert await outcomes(gateway) == {"retried": 2, "delivered": 1}


async def test_an_end_that_was_put_off_has_all_its_attempts(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowds = iter([True] * 5)
    monkeypatch.setattr(Courier, "crowded", lambda *_: next(crowds, False))
    monkeypatch.setattr(webhooks_module, "_DEFERRED_S", 0.02)
    receiver.answers = [500]
    async with telling(gateway, webhook_attempts=2):
        await ended(gateway, receiver.url)
        await until(counted, gateway, "given_up", 1)
    assert len(receiver.got) == 2
    assert await outcomes(gateway) == {"retried": 1, "given_up": 1}


async def test_ends_that_wait_when_the_gateway_ends_have_not_been_tried(
    gateway: Gateway, receiver: Receiver
) -> None:
    receiver.answers = [0]
    async with telling(gateway):
        for _ in range(6):
            await ended(gateway, receiver.url)
        # As many as a host is posted to at a time.
        await receiver.until(4)
    taken = await gateway.store.take_deliveries(time.time() + 1.0, 30.0, 10)
    assert sorted(one.attempts for one in taken) == [1, 1, 2, 2, 2, 2]
