"""A fleet on the wall clock: each request is drawn once, by a replica that was there for it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from scaling_rig import AT_ONCE, fixed, load, settings
from typer.testing import CliRunner

import check_scaling
from diffusion_costs.scaling.policies import ByPendingSteps
from saving.live import LiveFleet, Place
from serving.errors import Trouble


class Rooms:
    """Where replicas draw, in this process; notes what was asked of it."""

    def __init__(self, there: str) -> None:
        self.open = {there}
        self.drawn: Counter[str] = Counter()
        self.loads: list[str] = []
        self.drops: list[str] = []
        self.busy: set[str] = set()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    @property
    def place(self) -> Place:
        return Place(self.load, self.drop, self.draw)

    def load(self, name: str) -> None:
        time.sleep(0.02)
        with self._lock:
            self.open.add(name)
            self.loads.append(name)

    def drop(self, name: str) -> None:
        with self._lock:
            if name in self.busy:
                self.faults.append(f"{name} was dropped while it drew")
            self.open.discard(name)
            self.drops.append(name)

    def draw(self, name: str, steps: int) -> None:
        with self._lock:
            if name not in self.open or name in self.busy:
                self.faults.append(f"{name} could not draw")
            self.busy.add(name)
        time.sleep(steps * 0.001)
        with self._lock:
            self.busy.discard(name)
            self.drawn[name] += 1


SHORT = {"poll_s": 0.05, "provision_s": (0.05, 0.05), "rate_window_s": 0.5, "use_window_s": 0.5}


def test_replicas_come_while_work_is_pending_and_each_request_is_drawn_once() -> None:
    rooms = Rooms("first")
    policy = ByPendingSteps(1000.0, 0.05, 1, AT_ONCE)
    asked = load(*[0.0] * 40, work=20.0, horizon_s=1.5)
    seen = LiveFleet(policy, settings(**SHORT, most=4), rooms.place, 0.001).run(asked, ["first"])
    assert not rooms.faults
    assert sum(rooms.drawn.values()) == len(seen.latencies) == 40
    assert min(seen.latencies) >= 0.02
    assert 2 <= max(one.ready for one in seen.moments) <= 4
    assert seen.starts == 1 + len(rooms.loads)
    # All that were loaded were dropped, and the first with them.
    assert Counter(rooms.drops) == Counter(["first", *rooms.loads])
    assert 0 < seen.busy_s < seen.paid_s
    assert 0 < seen.starting_s < seen.paid_s


def test_a_replica_that_fails_ends_the_run() -> None:
    def refuse(name: str, steps: int) -> None:
        raise OSError("no device")

    rooms = Rooms("first")
    place = Place(rooms.load, rooms.drop, refuse)
    with pytest.raises(Trouble, match="a replica failed: no device"):
        LiveFleet(fixed(1), settings(**SHORT), place, 0.001).run(load(0.0), ["first"])


@pytest.mark.full
@pytest.mark.system
def test_a_policy_on_a_real_torchserve(tmp_path: Path) -> None:
    arguments = ["--seconds", "20", "--use", "0.6", "--out", str(tmp_path)]
    done = CliRunner().invoke(check_scaling.app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "scaling-check.json").read_text())
    assert found["requests"] > 0
    assert found["seen"]["replica_s"] >= 20 * 0.99
    assert found["step_s"] > 0
    assert found["cold_start_s"] > 0
    assert (tmp_path / "scaling-check.png").stat().st_size > 8000
