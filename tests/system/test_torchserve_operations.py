"""What an operator does while requests come in: every one of them is answered with its picture."""

from __future__ import annotations

import pytest

from served import Load
from serving.fleet import Fleet

pytestmark = pytest.mark.system


def test_scaling_up_and_down_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        (more,) = fleet.scale("tiny", 2)
        (less,) = fleet.scale("tiny", 1)
    assert (len(more.workers), len(less.workers)) == (2, 1)
    assert set(load.answers) == {200}
    assert load.answers[200] > 10


def test_an_update_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        old, new = fleet.update("tiny", "tiny.mar")
    assert old.version != new.version
    assert [found.version for found in fleet.management.versions("tiny")] == [new.version]
    assert fleet.management.models() == ["tiny"]
    assert set(load.answers) == {200}


def test_another_batch_size_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        old, new = fleet.rebatch("tiny", 3, 70)
    assert (new.batch_size, new.delay) == (3, 70)
    assert old.version not in {found.version for found in fleet.management.versions("tiny")}
    assert set(load.answers) == {200}


def test_unregistering_leaves_no_variant_behind(url: str, fleet: Fleet) -> None:
    fleet.rebatch("tiny", 2, 20)
    fleet.unregister("tiny")
    assert fleet.management.models() == []
    assert [path.name for path in fleet.store.iterdir() if path.name.startswith(".")] == []
    fleet.register("tiny.mar", "tiny")
