"""A Triton one of whose models hangs or does not load: the others, and how often that is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.upstream import idle as idle_module
from diffusion_gateway.upstream import triton as triton_module
from diffusion_gateway.upstream.catalog import Catalog
from diffusion_gateway.upstream.idle import Idle
from fake_triton import TritonModel, triton
from worker_rig import working


async def until(holds: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_worker_that_hangs_is_its_own_models_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_module, "_CALL_S", 0.5)
    hung, well = TritonModel("hung"), TritonModel("well")
    async with triton(hung, well) as fake:
        settings = GatewaySettings(
            store_url=f"sqlite:{tmp_path / 'jobs.sqlite'}", endpoints=(fake.settings,)
        )
        catalog = Catalog(settings, tmp_path)
        await catalog.refresh()
        assert [model.ready for model in catalog.models()] == [True, True]
        hung.hangs = True
        (endpoint,) = catalog.endpoints
        for _ in range(3):
            await catalog.look(endpoint)
            ready = {model.name: model.ready for model in catalog.models()}
            assert ready == {"hung": False, "well": True}
        assert endpoint.alive
        hung.hangs = False
        await catalog.look(endpoint)
        assert catalog.get("hung").ready
        await catalog.close()


@pytest.mark.parametrize("after", [0.0, 0.3], ids=["at once", "while it loads"])
async def test_a_model_that_does_not_load_is_tried_again_after_a_while(
    after: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_module, "_REFUSED_S", 0.1)
    monkeypatch.setattr(idle_module, "_RETRY_S", 1.5)
    for name, seconds in (("_TURN_S", 0.05), ("_LOOK_S", 0.02), ("_KEEPS_S", 0.0)):
        monkeypatch.setattr(idle_module, name, seconds)
    model = TritonModel("emoji", load_s=after, fails=True)
    async with (
        triton(model) as fake,
        working(tmp_path, fake.settings, works=False, idle_after_s=0.2) as rig,
    ):
        idle = Idle(rig.gateway.catalog, rig.store, rig.gateway.settings)
        task = asyncio.create_task(idle.run())
        (one,) = rig.gateway.catalog.get("emoji").registrations
        await until(lambda: one.asleep)
        await rig.submit()
        await until(lambda: model.reason == "Internal: no weights")
        # A dozen turns later nobody has asked again, and nobody waits for it to load.
        await asyncio.sleep(12 * 0.05)
        assert model.loads == 1
        assert not one.ready
        model.fails = False
        await until(lambda: one.ready)
        assert model.loads == 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
