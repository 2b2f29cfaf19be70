"""What an operator does while requests come in: every one of them is answered with its picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from served import Load, build
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system


def test_scaling_up_and_down_loses_no_request(url: str, fleet: Fleet, server: Server) -> None:
    with Load(url) as load:
        (more,) = fleet.scale("tiny", 2)
        (less,) = fleet.scale("tiny", 1)
    assert (len(more.workers), len(less.workers)) == (2, 1)
    assert set(load.answers) == {200}
    assert load.answers[200] > 10
    # 202: no call waited inside TorchServe for a load, which stops other clients' requests.
    log = (server.logs / "access_log.log").read_text()
    assert set(re.findall(r'"(?:POST|PUT) /models\S*\?\S* .*HTTP/1.1" (\d+)', log)) == {"202"}


def test_a_model_that_does_not_load_is_not_registered(fleet: Fleet, pipeline: Path) -> None:
    build(fleet.store, pipeline, "broken", "no-archive")
    weights = fleet.store / "broken" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.write_bytes(b"not weights")
    with pytest.raises(Trouble, match="broken did not load; `make logs` shows"):
        fleet.register("broken", "broken")
    assert "broken" not in fleet.management.models()


def test_an_update_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        ((old, new),) = fleet.update("tiny", "tiny.mar")
    assert old.version != new.version
    assert [found.version for found in fleet.management.versions("tiny")] == [new.version]
    assert fleet.management.models() == ["tiny"]
    assert set(load.answers) == {200}


def test_another_batch_size_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        ((old, new),) = fleet.rebatch("tiny", 3, 70)
    assert (new.batch_size, new.delay) == (3, 70)
    assert old.version not in {found.version for found in fleet.management.versions("tiny")}
    assert set(load.answers) == {200}


def test_unregistering_leaves_no_variant_behind(url: str, fleet: Fleet) -> None:
    fleet.rebatch("tiny", 2, 20)
    fleet.unregister("tiny")
    assert fleet.management.models() == []
    assert [path.name for path in fleet.store.iterdir() if path.name.startswith(".")] == []
    fleet.register("tiny.mar", "tiny")
