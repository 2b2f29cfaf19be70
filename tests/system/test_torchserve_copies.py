"""Copies of a continuous model (NAME-2) change with it, and come back with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from served import Load, build
from serving.fleet import Fleet
from serving.server import Server
from serving.starting import bring_up

pytestmark = [pytest.mark.system, pytest.mark.full]

NAMES = ["flow", "flow-2"]


def served(fleet: Fleet) -> list[tuple[str, str]]:
    """Archive and version of each."""
    found = [fleet.management.version(name) for name in NAMES]
    return [(one.archive, one.version) for one in found]


def identities(fleet: Fleet) -> set[str]:
    return {fleet.management.describe(name)["identity"] for name in NAMES}


@pytest.mark.timeout(900)
def test_copies_change_and_come_back_with_their_model(
    new_server: Callable[[], Server], pipeline: Path, store: Path
) -> None:
    build(store, pipeline, "flow", "no-archive", continuousBatching=True)
    build(store, pipeline, "later", "no-archive", continuousBatching=True, batchSize=5)
    server = new_server()
    fleet = Fleet(server)
    fleet.register("flow", "flow")
    # A name like a copy's, and another model.
    fleet.register("tiny.mar", "flow-9")
    fleet.scale("flow", 2)
    url = f"{server.require().inference}/predictions"

    with Load(f"{url}/flow", threads=2) as first, Load(f"{url}/flow-2", threads=2) as second:
        changed = fleet.update("flow", "later")
    assert [new.name for _, new in changed] == NAMES
    # All of them the same folder, made once.
    assert served(fleet) == [served(fleet)[0]] * 2
    assert fleet.management.version("flow").batch_size == 5
    assert set(first.answers) == set(second.answers) == {200}

    fleet.rebatch("flow", 3, 70)
    assert [fleet.management.version(name).batch_size for name in NAMES] == [3, 3]
    assert len(identities(fleet)) == 1

    before = served(fleet)
    process = psutil.Process(server.require().pid)
    process.kill()
    psutil.wait_procs([process], timeout=10)
    _, restored = bring_up(server)
    fleet = Fleet(server)
    assert sorted(restored) == [*NAMES, "flow-9"]
    assert served(fleet) == before
    assert [fleet.management.version(name).batch_size for name in NAMES] == [3, 3]

    removed = fleet.unregister("flow")
    assert {one.name for one in removed} == set(NAMES)
    assert fleet.management.models() == ["flow-9"]
    assert [path.name for path in store.iterdir() if path.name.startswith(".")] == []
