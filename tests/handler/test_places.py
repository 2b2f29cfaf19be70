"""Places of workers, and counts that outlive them."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from io import FileIO
from pathlib import Path
from threading import Thread

import pytest

from diffusion_engine import places
from diffusion_engine.metric_families import Change
from diffusion_engine.places import Place, server_folder

CHANGE = Change("diffusion_requests_total", ("tiny", "200"), 1)
OTHER = Change("diffusion_phase_duration_seconds", ("tiny", "whole"), 0.125, 3)

WORKER = """
import os, sys
from pathlib import Path
from diffusion_engine.metric_families import Change
from diffusion_engine.places import Place
place = Place(Path(sys.argv[1]), "tiny")
print(place.number, place.speaks_for_host, flush=True)
place.keep([Change("diffusion_requests_total", ("tiny", "200"), 1)])
print("kept", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shared" / str(os.getpid())


class Worker:
    """A process with a place, killed at the end."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdout is not None
        number, speaks = self._process.stdout.readline().split()
        self.number, self.speaks = int(number), speaks == "True"
        assert self._process.stdout.readline() == "kept\n"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


def test_workers_of_a_model_have_the_lowest_free_numbers(folder: Path) -> None:
    first, second, other = Place(folder, "tiny"), Place(folder, "tiny"), Place(folder, "large")
    assert (first.number, second.number, other.number) == (0, 1, 0)
    first.close()
    third = Place(folder, "tiny")
    assert third.number == 0
    for place in (second, other, third):
        place.close()


def test_a_dead_workers_place_is_free_while_another_collects_what_it_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker(folder):
        collector = Place(folder, "tiny")
    reads = places._read
    taken: list[Place] = []
    newcomer = Thread(target=lambda: taken.append(Place(folder, "tiny")))

    def read(file: FileIO) -> list[Change]:
        if file.name.name == "0":
            newcomer.start()
            newcomer.join(0.2)
        return reads(file)

    monkeypatch.setattr(places, "_read", read)
    assert collector.inherit() == [CHANGE]
    newcomer.join()
    assert (collector.number, taken[0].number) == (1, 0)
    for place in (collector, *taken):
        place.close()


def test_nobody_collects_while_a_place_is_taken(folder: Path) -> None:
    with Worker(folder):
        collector = Place(folder, "tiny")
    (door,) = folder.glob("*/door")
    with door.open("a") as taking:
        fcntl.flock(taking, fcntl.LOCK_EX)
        assert collector.inherit() == []
    assert collector.inherit() == [CHANGE]
    collector.close()


def test_one_worker_of_a_server_speaks_for_the_host(folder: Path) -> None:
    first, second = Place(folder, "tiny"), Place(folder, "large")
    assert [first.speaks_for_host, second.speaks_for_host, first.speaks_for_host] == [
        True,
        False,
        True,
    ]
    first.close()
    assert second.speaks_for_host
    second.close()


def test_a_killed_workers_changes_are_its_successors(folder: Path) -> None:
    with Worker(folder) as worker:
        assert (worker.number, worker.speaks) == (0, True)
        second = Place(folder, "tiny")
        assert second.number == 1
        assert second.inherit() == []
        second.close()
    successor = Place(folder, "tiny")
    assert (successor.number, successor.left_here()) == (0, [CHANGE])
    successor.forget()
    successor.keep([OTHER])
    successor.close()
    next_one = Place(folder, "tiny")
    assert next_one.left_here() == [OTHER]
    next_one.close()


def test_whoever_lives_inherits_where_nobody_follows(folder: Path) -> None:
    with Worker(folder):
        second = Place(folder, "tiny")
    assert second.inherit() == [CHANGE]
    assert second.inherit() == []
    second.close()


def test_a_line_that_a_kill_cut_off_costs_no_other(folder: Path) -> None:
    place = Place(folder, "tiny")
    place.keep([CHANGE])
    place.close()
    (file,) = folder.glob("*/0")
    file.write_bytes(file.read_bytes() + b'\n[["diffusion_requests_to')
    place = Place(folder, "tiny")
    place.keep([OTHER])
    assert place.left_here() == [CHANGE, OTHER]
    place.close()


def test_families_of_another_version_are_left_out(folder: Path) -> None:
    place = Place(folder, "tiny")
    place.keep([Change("diffusion_of_tomorrow_total", ("tiny",), 1), CHANGE])
    assert place.left_here() == [CHANGE]
    place.close()


def test_folders_of_dead_servers_are_deleted(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    Place(folder.parent / str(dead.pid), "tiny").close()
    kept = folder.parent / "something else"
    kept.mkdir()
    Place(folder, "tiny").close()
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(
        [str(os.getpid()), "something else"]
    )


@pytest.mark.parametrize("kind", ["link", "open to all", "a file"])
def test_a_folder_that_others_can_write_is_not_used(
    kind: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.parent.symlink_to(tmp_path / "elsewhere")
    elif kind == "a file":
        folder.parent.write_text("")
    else:
        folder.parent.mkdir()
        folder.parent.chmod(0o777)
    place = Place(folder, "tiny")
    place.keep([CHANGE])
    assert (place.number, place.left_here(), place.inherit()) == (0, [], [])
    assert place.speaks_for_host
    assert "not kept beyond this process" in caplog.text
    assert not (tmp_path / "elsewhere").exists() or not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_was_tidied_away_stops_nobody(folder: Path) -> None:
    place = Place(folder, "tiny")
    shutil.rmtree(folder)
    place.keep([CHANGE])
    assert place.inherit() == []
    assert place.speaks_for_host
    place.forget()
    place.close()


def test_a_server_is_told_by_the_workers_parent() -> None:
    assert server_folder().name == str(os.getppid())
