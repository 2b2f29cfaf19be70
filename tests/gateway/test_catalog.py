"""What the catalog knows of endpoints that come, change, sleep and go; and tokens that expire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from diffusion_gateway.errors import UnknownModelError, UpstreamError
from diffusion_gateway.settings import EndpointSettings, GatewaySettings
from diffusion_gateway.upstream import catalog as catalog_module
from diffusion_gateway.upstream.catalog import Catalog
from diffusion_gateway.upstream.endpoints import Breaker, Endpoint, Registration, choose
from diffusion_gateway.upstream.model_server import AnswerError, ConnectionLostError, Registered
from diffusion_gateway.upstream.torchserve import TorchServe
from fake_model import FakeModel
from fake_torchserve import FakeTorchServe, Keys, Refused, faked


def settings(folder: Path, *endpoints: EndpointSettings, **changes: Any) -> GatewaySettings:
    store = f"sqlite:{folder / 'jobs.sqlite'}"
    return GatewaySettings(store_url=store, endpoints=endpoints, **changes)


async def opened(folder: Path, *endpoints: EndpointSettings) -> Catalog:
    made = Catalog(settings(folder, *endpoints), folder)
    await made.refresh()
    return made


async def test_a_model_is_as_it_describes_itself(tmp_path: Path) -> None:
    async with faked() as fake:
        found = await opened(tmp_path, fake.settings())
        model = found.get("emoji")
        assert model.identities == ("runtime-of-the-fake",)
        assert (model.continuous, model.previews, model.checkpoints) == (True, True, True)
        assert model.schema.parse_json({"prompt": "a", "width": 64, "height": 64}).width == 64
        assert (model.ready, model.places) == (True, 4)
        await found.close()


async def test_an_unknown_model_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    async with faked(FakeModel("a"), FakeModel("b")) as fake:
        found = await opened(tmp_path, fake.settings())
        with pytest.raises(UnknownModelError, match="served: a, b"):
            found.get("c")
        await found.close()


async def test_a_sleeping_model_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with faked() as fake:
        first = await opened(tmp_path, fake.settings())
        schema = first.get("emoji").schema.json_schema()
        await first.close()
        fake.models["emoji"].workers = 0
        second = await opened(tmp_path, fake.settings())
        model = second.get("emoji")
        assert not model.ready
        assert model.registrations[0].asleep
        assert model.schema.json_schema() == schema
        await second.close()


async def test_an_endpoint_sleeps_where_all_of_its_models_do(tmp_path: Path) -> None:
    async with faked(FakeModel("a"), FakeModel("b")) as fake:
        found = await opened(tmp_path, fake.settings())
        (endpoint,) = found.endpoints
        assert endpoint.state == "ready"
        fake.models["a"].workers = 0
        await found.refresh()
        assert endpoint.state == "ready"
        fake.models["b"].workers = 0
        await found.refresh()
        assert endpoint.state == "asleep"
        endpoint.alive = False
        assert endpoint.state == "not_ready"
        await found.close()


async def test_models_are_known_before_their_server_answers(tmp_path: Path) -> None:
    async with faked() as fake:
        first = await opened(tmp_path, fake.settings())
        await first.close()
        await fake.stop()
        second = await opened(tmp_path, fake.settings())
        assert not second.get("emoji").ready
        assert not second.get("emoji").registrations[0].asleep
        await fake.start()
        await second.refresh()
        assert second.get("emoji").ready
        await second.close()


async def test_a_damaged_memory_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"models": [{"endpoint": 3}]}')
    async with faked() as fake:
        found = await opened(tmp_path, fake.settings())
        assert found.get("emoji").ready
        await found.close()


async def test_a_memory_that_cannot_be_written_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    shared = settings(tmp_path).model_copy(update={"store_url": "redis://127.0.0.1:1/0"})
    found = Catalog(shared, tmp_path / "file")
    for _ in range(3):
        found.remember()
    (record,) = caplog.records
    assert record.getMessage().endswith("file/models.json cannot be written: File exists")
    await found.close()


async def test_another_archive_under_the_same_name_is_described_anew(tmp_path: Path) -> None:
    async with faked() as fake:
        found = await opened(tmp_path, fake.settings())
        model = fake.models["emoji"]
        model.version, model.identity, model.process = "2.0", "newer", 2
        await found.refresh()
        async with asyncio.timeout(5):
            while found.get("emoji").identities != ("newer",):
                await asyncio.sleep(0.01)
        # Asleep, nobody could tell what the next one draws: it is unknown until it has run.
        model.version, model.workers = "3.0", 0
        await found.refresh()
        with pytest.raises(UnknownModelError):
            found.get("emoji")
        await found.close()


async def test_endpoints_may_draw_under_different_identities(tmp_path: Path) -> None:
    other = FakeModel("emoji", identity="on-another-device")
    async with faked() as first, faked(other) as second:
        found = await opened(tmp_path, first.settings(), second.settings())
        assert found.get("emoji").identities == ("runtime-of-the-fake", "on-another-device")
        assert found.get("emoji").places == 8
        await found.close()


async def test_names_with_numbers_are_one_model_only_if_they_are_one_archive(
    tmp_path: Path,
) -> None:
    models = [
        FakeModel("sd"),
        FakeModel("sd-2"),
        FakeModel("sd-3", archive="other.mar", identity="other"),
        FakeModel("xl-2"),
    ]
    async with faked(*models) as fake:
        found = await opened(tmp_path, fake.settings())
        assert [model.name for model in found.models()] == ["sd", "sd-3", "xl-2"]
        assert found.get("sd").places == 8
        await found.close()


async def test_settings_say_which_models_an_endpoint_serves(tmp_path: Path) -> None:
    models = [FakeModel("sd"), FakeModel("sd-2"), FakeModel("xl", archive="xl.mar")]
    async with faked(*models) as fake:
        found = await opened(tmp_path, fake.settings(models=("sd",)))
        assert [one.name for one in found.registrations()] == ["sd", "sd-2"]
        await found.close()


async def test_a_removed_model_is_forgotten_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "REFRESH_S", 0.05)
    monkeypatch.setattr(catalog_module, "_FORGET_S", 0.3)
    async with faked() as fake:
        found = await opened(tmp_path, fake.settings())
        del fake.models["emoji"]
        await asyncio.sleep(0.1)
        await found.refresh()
        assert not found.get("emoji").ready
        await asyncio.sleep(0.3)
        await found.refresh()
        assert found.models() == []
        await found.close()


async def test_a_handler_of_another_kind_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_torchserve

    async with faked() as fake:
        monkeypatch.setattr(fake_torchserve, "description", lambda _: {"name": "resnet"})
        found = await opened(tmp_path, fake.settings())
        assert found.models() == []
        await found.close()


async def test_an_expired_token_is_renewed_once_for_all_who_wait(tmp_path: Path) -> None:
    async with faked() as fake:
        fake.keys = Keys(tmp_path / "key_file.json")
        server = TorchServe(fake.settings(key_file=fake.keys.path))
        fields = {"prompt": "a", "num_inference_steps": 2, "seed": 1}
        assert (await server.predict("emoji", fields, 5))["seeds"] == [1]
        fake.keys.expire("inference")
        answers = await asyncio.gather(*(server.predict("emoji", fields, 5) for _ in range(6)))
        assert [one["seeds"] for one in answers] == [[1]] * 6
        assert fake.keys.renewed == ["inference"]
        fake.keys.expire("inference")
        async with server.stream("emoji", fields, 5) as events:
            assert [event["type"] async for event in events][-1] == "completed"
        assert fake.keys.renewed == ["inference"] * 2
        await server.close()


async def test_a_token_that_another_client_renewed_is_read_from_the_file(tmp_path: Path) -> None:
    async with faked() as fake:
        fake.keys = Keys(tmp_path / "key_file.json")
        server = TorchServe(fake.settings(key_file=fake.keys.path))
        assert await server.models() == ["emoji"]
        fake.keys.renew("management")
        assert await server.models() == ["emoji"]
        assert fake.keys.renewed == ["management"]
        await server.close()


async def test_a_model_that_speaks_of_tokens_does_not_cost_others_theirs(tmp_path: Path) -> None:
    said = {"status": 400, "code": "invalid_field", "detail": "prompt: 99 tokens are too many"}

    async def refuse(*_: Any) -> None:
        raise Refused(400, said)

    async with faked() as fake:
        fake.keys, fake.script = Keys(tmp_path / "key_file.json"), refuse
        server = TorchServe(fake.settings(key_file=fake.keys.path))
        with pytest.raises(AnswerError) as caught:
            await server.predict("emoji", {"prompt": "a"}, 5)
        assert caught.value.document == said
        assert fake.keys.renewed == []
        await server.close()


async def test_no_token_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with faked() as fake:
        fake.keys = Keys(tmp_path / "key_file.json")
        with_none = TorchServe(fake.settings(key_file=tmp_path / "nowhere.json"))
        with pytest.raises(UpstreamError, match="key file"):
            await with_none.models()
        without = TorchServe(fake.settings())
        with pytest.raises(AnswerError, match="Token"):
            await without.models()
        await with_none.close()
        await without.close()


async def test_a_server_that_is_not_there_had_no_request() -> None:
    fake = FakeTorchServe(FakeModel("emoji"))
    await fake.start()
    await fake.stop()
    server = TorchServe(fake.settings())
    with pytest.raises(ConnectionLostError) as caught:
        await server.predict("emoji", {}, 5)
    assert not caught.value.sent
    await server.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_after_three_failures_and_lets_one_through_to_see() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(2):
        breaker.failed()
    assert breaker.closed
    breaker.failed()
    assert (breaker.closed, breaker.half_open) == (False, False)
    pauses = []
    for _ in range(7):
        began = clock.now
        while not breaker.half_open:
            clock.now += 0.5
        pauses.append(clock.now - began)
        breaker.failed()
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    clock.now += 30
    breaker.succeeded()
    assert breaker.closed


def test_failures_of_one_moment_count_as_one_pause() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(20):
        breaker.failed()
    clock.now += 1
    assert breaker.half_open


def registration(load: float = 0.0, identity: str = "here", **known: Any) -> Registration:
    fields: dict[str, Any] = {
        "name": "emoji",
        "version": "1",
        "archive": "a",
        "batch_size": 2,
        "continuous": True,
        "workers": 1,
        "ready": 1,
        "processes": frozenset(),
        **known,
    }
    endpoint = Endpoint.of(EndpointSettings(inference="http://x", management="http://x"))
    endpoint.alive = True
    made = Registration(endpoint, Registered(**fields), {"runtime_identity": identity})
    if load:
        made.take("some", load)
    return made


def test_the_least_work_is_chosen_and_a_checkpoints_identity_before_it() -> None:
    busy, idle = registration(10.0, "there"), registration(5.0)
    assert choose([busy, idle]) is idle
    assert choose([busy, idle], identity="there") is busy
    assert choose([busy, idle], identity="nowhere") is idle


def test_work_is_counted_for_each_worker() -> None:
    one, three = registration(10.0), registration(24.0, workers=3, ready=3)
    assert choose([one, three]) is three
    assert (one.places, three.places) == (4, 8)


def test_who_is_to_be_alone_keeps_the_others_out() -> None:
    one = registration()
    one.take("alone", 1.0, alone=True)
    assert one.room == 0
    assert choose([one]) is None
    one.leave("alone")
    assert one.room == 4


def test_without_a_worker_there_is_no_room() -> None:
    assert registration(workers=1, ready=0).room == 0
    asleep = registration(workers=0, ready=0)
    assert (asleep.room, asleep.asleep) == (0, True)
