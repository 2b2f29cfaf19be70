from __future__ import annotations

from pathlib import Path

import pytest

from containers.requirements import requirements
from releasing import locks
from serving.errors import Trouble


@pytest.mark.parametrize("image", locks.images())
def test_locks_are_of_todays_requirements(image: str) -> None:
    assert locks.faults(image) == []


def test_images_share_the_versions_of_what_they_share() -> None:
    gateway, worker = locks.pins("gateway"), locks.pins("worker-cpu")
    common = gateway.keys() & worker.keys()
    assert "pydantic" in common
    assert {name: gateway[name] for name in common} == {name: worker[name] for name in common}


def test_each_package_has_a_hash_and_no_index_is_named() -> None:
    for image in locks.images():
        text = locks.path_of(image).read_text()
        entries = [one for one in text.split("\n") if "==" in one]
        assert len(entries) == len(locks.pins(image))
        assert all(one.endswith("\\") for one in entries)
        assert "://" not in text
        assert "torch" not in locks.pins(image)


def test_a_lock_of_other_requirements_says_what_is_wrong(tmp_path: Path) -> None:
    lines = locks.path_of("gateway").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(locks._WANTED)]
    text = "\n".join(kept).replace("redis==", "rediss==")
    text = text.replace(f"pydantic=={locks.pins('gateway')['pydantic']}", "pydantic==1.0")
    (tmp_path / "gateway.txt").write_text(text)
    found = locks.faults("gateway", tmp_path)
    assert any("`make lock`" in one for one in found)
    assert "gateway: redis is not locked" in found
    assert any("pydantic 1.0 is not >=" in one for one in found)


def test_without_a_lock_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="make lock"):
        locks.pins("gateway", tmp_path)


def test_what_is_not_locked_leaves_with_its_hashes() -> None:
    text = "".join(
        f"{pin} \\\n    --hash=sha256:{number}\n"
        for number, pin in enumerate(("a==1", "torch==2", "b==3"), 1)
    )
    assert [line.split()[0] for line in locks._entries(text)] == [
        "a==1",
        "--hash=sha256:1",
        "b==3",
        "--hash=sha256:3",
    ]


def test_the_digest_goes_by_every_requirement() -> None:
    wanted = requirements("gateway")
    assert locks.digest(wanted) != locks.digest([*wanted, "other>=1"])
