"""Copies of a model stay part of it while an update changes one after another."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.upstream import families
from diffusion_gateway.upstream.catalog import Catalog
from fake_model import FakeModel
from fake_torchserve import FakeTorchServe, faked


def catalog(folder: Path, fake: FakeTorchServe) -> Catalog:
    store = f"sqlite:{folder / 'jobs.sqlite'}"
    return Catalog(GatewaySettings(store_url=store, endpoints=(fake.settings(),)), folder)


def becomes(fake: FakeTorchServe, name: str) -> None:
    """Another archive, with pictures of its own, under the same name."""
    model = fake.models[name]
    model.archive, model.version, model.identity = "later.mar", "2.0", "later"


async def told(found: Catalog, name: str) -> None:
    """Looks until what has come under that name has described itself."""
    for _ in range(100):
        await found.refresh()
        if found.endpoints[0].registrations[name].runtime_identity == "later":
            break
    await found.refresh()


async def test_an_update_of_one_after_another_shows_one_model(tmp_path: Path) -> None:
    async with faked(FakeModel("sd"), FakeModel("sd-2")) as fake:
        found = catalog(tmp_path, fake)
        for name in (None, "sd-2", "sd"):
            if name:
                becomes(fake, name)
            await found.refresh()
            assert [model.name for model in found.models()] == ["sd"]
            assert found.get("sd").places == 8
        await found.close()


async def test_a_copy_that_stays_another_archive_is_a_model_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with faked(FakeModel("sd"), FakeModel("sd-2")) as fake:
        found = catalog(tmp_path, fake)
        await found.refresh()
        becomes(fake, "sd-2")
        await told(found, "sd-2")
        assert [model.name for model in found.models()] == ["sd"]
        monkeypatch.setattr(families, "UPDATE_S", 0.0)
        await found.refresh()
        assert [model.name for model in found.models()] == ["sd", "sd-2"]
        await found.close()


async def test_a_name_that_was_free_in_between_is_no_copy(tmp_path: Path) -> None:
    async with faked(FakeModel("sd"), FakeModel("sd-2")) as fake:
        found = catalog(tmp_path, fake)
        await found.refresh()
        removed = fake.models.pop("sd-2")
        # It was not in the list that was read just now, nor in the one before.
        found.endpoints[0].registrations["sd-2"].seen -= 10
        await found.refresh()
        fake.models["sd-2"] = removed
        becomes(fake, "sd-2")
        await told(found, "sd-2")
        assert [model.name for model in found.models()] == ["sd", "sd-2"]
        await found.close()
