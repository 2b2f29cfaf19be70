"""Continuous batching: one worker a registration, so scaling registers the archive again."""

from __future__ import annotations

from pathlib import Path

import pytest

from served import PNG, Load, ask, ask_together, build
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def url(server: Server, fleet: Fleet, pipeline: Path, store: Path) -> str:
    build(store, pipeline, "flow", "no-archive", continuousBatching=True)
    fleet.register("flow", "flow")
    return f"{server.require().inference}/predictions/flow"


def test_good_and_bad_requests_share_a_batch(url: str) -> None:
    answers = ask_together(
        lambda: ask(url, seed=1, num_inference_steps=40),
        lambda: ask(url, num_inference_steps=0),
        lambda: ask(url, seed=1, num_inference_steps=2),
    )
    assert [answer.status_code for answer in answers] == [200, 422, 200]
    assert answers[0].content.startswith(PNG)


def test_scaling_registers_the_archive_again_and_drains_it(url: str, fleet: Fleet) -> None:
    found = fleet.scale("flow", 2)
    assert [one.name for one in found] == ["flow", "flow-2"]
    assert [len(one.workers) for one in found] == [1, 1]
    with Load(f"{url}-2", threads=2) as load:
        pass
    assert set(load.answers) == {200}
    assert [one.name for one in fleet.scale("flow", 1)] == ["flow"]
    assert fleet.management.models() == ["flow"]


def test_an_update_loses_no_request(url: str, fleet: Fleet) -> None:
    with Load(url) as load:
        ((old, new),) = fleet.update("flow", "flow")
    assert old.version != new.version
    assert set(load.answers) == {200}


def test_describe_is_answered_by_the_handler(url: str, fleet: Fleet) -> None:
    assert "limits" in fleet.management.describe("flow")
