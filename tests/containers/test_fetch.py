"""Models in a cache: nothing under its name that is not what its hash says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from containers import fetch as program
from containers.fetch import DamagedArchiveError, place
from containers.models import Model, read_models
from diffusion_core.errors import ConfigError
from diffusion_core.identity import RECORD_NAME, ArchiveRecord, FileRecord
from s3_servers import BUCKET, environment, moto

FILES = {
    "pipeline/unet/weights.safetensors": b"w" * 200_000,
    "pipeline/model_index.json": b"{}",
    "model-config.yaml": b"minWorkers: 1\n",
}
WEIGHTS = "pipeline/unet/weights.safetensors"


def archive(folder: Path, files: dict[str, bytes] = FILES, **named: str) -> Model:
    """An archive's folder; `named` are files that the record names and that are elsewhere."""
    known = {path: FileRecord(size=len(it), sha256=_sha256(it)) for path, it in files.items()}
    known |= {path: FileRecord(size=1, sha256=digest) for path, digest in named.items()}
    record = ArchiveRecord(
        name="m",
        version="1.0",
        identity="i",
        pipeline_class="P",
        licence=None,
        recipe={},
        files=known,
    )
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    text = record.model_dump_json().encode()
    (folder / RECORD_NAME).write_bytes(text)
    return Model(source=f"file://{folder}", sha256=_sha256(text))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = tmp_path / "cache" / "archives"
    made.mkdir(parents=True)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD_NAME
    }


def test_from_s3_once_and_then_from_the_cache(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = archive(tmp_path / "source")
    with moto(tmp_path) as address:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        bucket = S3Store(BUCKET, prefix="models/m", client_options={"allow_http": True})
        for path in (tmp_path / "source").rglob("*"):
            if path.is_file():
                key = str(path.relative_to(tmp_path / "source"))
                obstore.put(bucket, key, path.read_bytes())
        remote = model.model_copy(update={"source": f"s3://{BUCKET}/models/m"})
        target = place("m", remote, store)
        assert target.name == f"m-{model.sha256[:12]}"
        assert content(target) == FILES
    # The storage is gone.
    assert place("m", remote, store) == target
    shutil.rmtree(target)
    with pytest.raises(ConfigError, match=r"models\.m\.source: cannot be fetched"):
        place("m", remote, store)
    assert list(store.iterdir()) == []


def test_what_is_damaged_at_its_source_is_named_and_not_placed(tmp_path: Path, store: Path) -> None:
    model = archive(tmp_path / "source")
    (tmp_path / "source" / WEIGHTS).write_bytes(b"v" * 200_000)
    with pytest.raises(DamagedArchiveError, match=rf"{WEIGHTS}: weights\.safetensors has SHA-256"):
        place("m", model, store)
    assert list(store.iterdir()) == []


def test_another_archive_than_the_one_that_is_wanted(tmp_path: Path, store: Path) -> None:
    model = archive(tmp_path / "source").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DamagedArchiveError, match=r"models\.m\.sha256: archive\.json has SHA-256"):
        place("m", model, store)


def test_what_is_damaged_in_the_cache_is_fetched_again(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = archive(tmp_path / "source")
    target = place("m", model, store)
    for harm in (
        lambda: (target / WEIGHTS).write_bytes(b"v" * 200_000),
        lambda: (target / WEIGHTS).unlink(),
        lambda: (target / RECORD_NAME).write_bytes(b"{}"),
    ):
        harm()
        assert place("m", model, store) == target
        assert "it is fetched again" in capsys.readouterr().out
        assert content(target) == FILES


def test_a_record_that_leads_elsewhere_is_refused(tmp_path: Path, store: Path) -> None:
    model = archive(tmp_path / "source", **{"../../../passwd": "0" * 64})
    with pytest.raises(DamagedArchiveError, match="outside of the archive"):
        place("m", model, store)


def test_one_file(tmp_path: Path, store: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as packed:
        packed.writestr("a", "b")
    digest = _sha256((tmp_path / "m.mar").read_bytes())
    model = Model(source=f"file://{tmp_path}/m.mar", sha256=digest)
    target = place("m", model, store)
    assert target.name == f"m-{digest[:12]}.mar"
    target.write_bytes(b"damaged")
    assert _sha256(place("m", model, store).read_bytes()) == digest


def test_several_pods_at_once_make_one_archive(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = archive(tmp_path / "source")
    names = iter(range(100))
    monkeypatch.setattr(program.socket, "gethostname", lambda: f"pod-{next(names)}")
    with ThreadPoolExecutor(6) as pods:
        placed = {
            future.result() for future in [pods.submit(place, "m", model, store) for _ in range(6)]
        }
    (target,) = placed
    assert [path.name for path in store.iterdir()] == [target.name]
    assert content(target) == FILES


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"m": {"source": "s3://b/m", "sha256": "0" * 64, "registration": 2}}, "m.registration"),
        ({"m": {"source": "http://b/m", "sha256": "0" * 64}}, "m.source"),
        ({"m": {"source": "s3://b/m", "sha256": "0" * 64, "registrations": 0}}, "m.registrations"),
        ({"../m": {"source": "s3://b/m", "sha256": "0" * 64}}, "../m"),
        ([], "dictionary"),
    ],
)
def test_what_the_models_file_may_not_say(tmp_path: Path, models: Any, told: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps(models))
    with pytest.raises(ConfigError) as refused:
        read_models(path)
    assert told in str(refused.value)


def test_drafts_of_pods_that_were_killed_go_after_a_day(store: Path, tmp_path: Path) -> None:
    old, new = store / ".draft-a-1-m", store / ".draft-b-2-m"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    program.remove_abandoned(store)
    assert [path.name for path in store.iterdir()] == [new.name]
