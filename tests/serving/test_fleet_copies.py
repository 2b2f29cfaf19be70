"""What a fleet does to the registrations of one model, with TorchServe's books in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import serving.fleet
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.model_store import archive_of, require_archive_of
from serving.notes import forget_notes, read_notes
from serving.registration import READY, Registration, Worker


@dataclass
class Books:
    """The registrations of a TorchServe that loads at once, and the order of what was asked."""

    versions_of: dict[str, list[Registration]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def models(self) -> list[str]:
        return list(self.versions_of)

    def versions(self, name: str) -> list[Registration]:
        return self.versions_of.get(name, [])

    def version(self, name: str, version: str | None = None) -> Registration:
        for found in self.versions(name):
            if found.version == version or (version is None and found.default):
                return found
        raise Trouble(f"No model {name} is registered.")

    wait_ready = version

    def register(
        self, archive: str, name: str, *, batch_size: int | None = None, delay: int | None = None
    ) -> Registration:
        self.asked.append(f"{name}: {archive}")
        present = self.versions_of.setdefault(name, [])
        new = Registration(
            name=name,
            version=f"{len(self.asked)}.0",
            archive=archive,
            default=not present,
            batch_size=batch_size or 4,
            delay=delay or 50,
            min_workers=1,
            continuous=True,
            workers=(Worker("9000", READY, -1),),
            pending=0,
            capacity=100,
        )
        present.append(new)
        return new

    def make_default(self, name: str, version: str) -> None:
        self.versions_of[name] = [
            replace(one, default=one.version == version) for one in self.versions_of[name]
        ]

    def unregister(self, name: str, version: str) -> None:
        left = [one for one in self.versions_of[name] if one.version != version]
        self.versions_of[name] = left
        if not left:
            del self.versions_of[name]


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def fleet(tmp_path: Path, books: Books, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    store = tmp_path / "store"
    for archive in ("old", "new", "other"):
        (store / archive).mkdir(parents=True)
    monkeypatch.setattr(serving.fleet, "drain", lambda *_: None)
    server: Any = SimpleNamespace(
        folder=tmp_path,
        logs=tmp_path,
        management=lambda: books,
        require=lambda: SimpleNamespace(model_store=str(store)),
    )
    return Fleet(server)


def served(books: Books) -> dict[str, str]:
    return {name: books.version(name).archive for name in books.models()}


def test_an_update_is_of_all_copies_and_of_nothing_else(fleet: Fleet, books: Books) -> None:
    fleet.register("old", "flow")
    fleet.register("other", "flow-7")
    fleet.scale("flow", 3)
    books.asked.clear()
    changed = fleet.update("flow", "new")
    assert books.asked == ["flow-2: new", "flow-3: new", "flow: new"]
    assert [(old.archive, new.name) for old, new in changed] == [
        ("old", "flow"),
        ("old", "flow-2"),
        ("old", "flow-3"),
    ]
    assert served(books) == {"flow": "new", "flow-7": "other", "flow-2": "new", "flow-3": "new"}
    assert [len(books.versions(name)) for name in books.models()] == [1] * 4


def test_scaling_leaves_a_model_alone_that_is_named_like_a_copy(fleet: Fleet, books: Books) -> None:
    fleet.register("old", "flow")
    fleet.register("other", "flow-2")
    with pytest.raises(Trouble, match="flow-2 is another model, and flow needs the name"):
        fleet.scale("flow", 2)
    fleet.scale("flow", 1)
    assert served(books) == {"flow": "old", "flow-2": "other"}


def test_a_server_that_died_gets_back_what_it_served(fleet: Fleet, books: Books) -> None:
    fleet.register("old", "flow")
    fleet.scale("flow", 2)
    fleet.register("other", "another")
    fleet.unregister("another")
    before = served(books)
    books.versions_of.clear()
    assert fleet.restore() == (["flow", "flow-2"], [])
    assert served(books) == before
    assert fleet.restore() == ([], [])


def test_what_has_gone_from_the_store_is_told_and_the_rest_is_back(
    fleet: Fleet, books: Books
) -> None:
    fleet.register("old", "flow")
    fleet.register("other", "another")
    (fleet.store / "old").rmdir()
    books.versions_of.clear()
    back, (lost,) = fleet.restore()
    assert back == ["another"]
    assert lost.startswith("flow is not back: ")
    assert "holds no archive 'old'" in lost
    assert served(books) == {"another": "other"}
    # Until the archive is there again.
    (fleet.store / "old").mkdir()
    assert fleet.restore() == (["flow"], [])


def test_a_stop_forgets(fleet: Fleet, tmp_path: Path) -> None:
    fleet.register("old", "flow")
    assert [(note.name, note.archive) for note in read_notes(tmp_path)] == [("flow", "old")]
    forget_notes(tmp_path)
    assert read_notes(tmp_path) == []


def test_an_archive_is_found_in_any_format(tmp_path: Path) -> None:
    for name in ("a.mar", "b.tar.gz", "README.md", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "c").mkdir()
    assert [archive_of(tmp_path, name) for name in "abcd"] == ["a.mar", "b.tar.gz", "c", None]
    with pytest.raises(Trouble, match=r"holds no archive of d \(it holds: a.mar, b.tar.gz, c\)"):
        require_archive_of(tmp_path, "d")
