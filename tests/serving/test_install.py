from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import install


class Usage(NamedTuple):
    free: float


def test_too_little_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path / "none")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0.5e9))
    monkeypatch.setenv("TORCH_INDEX", "somewhere")
    with pytest.raises(SystemExit) as ended:
        install.require_disk()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"needs about {install.CPU_GB} GB of disk" in said
    assert "0.5 GB free" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "extras", "content", "covered"),
    [
        ("installed-base", [], "now", True),
        ("installed-base-dev", [], "now", True),
        ("installed-base", ["dev"], "now", False),
        ("installed-base-dev", ["dev"], "before", False),
    ],
)
def test_a_stamp_covers_what_was_installed_and_no_more(
    name: str, extras: list[str], content: str, covered: bool, tmp_path: Path
) -> None:
    stamp = tmp_path / name
    stamp.write_text(content)
    assert install.covers(stamp, extras, "now") is covered


def test_what_texts_say_of_extras_can_be_done() -> None:
    setup = ConfigParser(interpolation=None)
    setup.read(install.ROOT / "setup.cfg")
    extras = setup["options.extras_require"].keys()
    told = set()
    for path in texts():
        text = path.read_text(encoding="utf-8")
        # Under that name nothing of this project is on an index.
        assert "torchserve-diffusers[" not in text, path
        for words in re.findall(r"scripts/install\.py((?: [a-z]+)+)", text):
            assert set(words.split()) <= extras, f"{path}:{words}"
            told |= set(words.split())
    assert {"cuda", "edge", "optimize", "triton", "tracing"} <= told


def texts() -> Iterator[Path]:
    """What people read: pages, settings, and sources, whose errors they meet."""
    yield from (install.ROOT / name for name in ("README.md", "Makefile"))
    for folder in ("docs", "config", "core", "costs", "gateway", "handlers", "scripts"):
        for suffix in ("md", "yaml", "py"):
            yield from (install.ROOT / folder).rglob(f"*.{suffix}")


def test_an_interrupted_install_leaves_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install.sys, "argv", ["install.py"])
    monkeypatch.setattr(install, "make_venv", lambda: None)
    monkeypatch.setattr(install, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        install.main()
    assert list(tmp_path.iterdir()) == []
