"""What a good build makes: the layout, the record, the same bytes again, every format."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

from archive_tool import Run
from diffusion_core.identity import ArchiveRecord, archive_identity
from diffusion_core.model_config import parse_model_config

FORMATS = {
    "zip-store": "tiny.mar",
    "no-archive": "tiny",
    "tgz": "tiny.tar.gz",
    "default": "tiny.mar",
}


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert all(info.compress_type == zipfile.ZIP_STORED for info in opened.infolist())
        return {name: opened.read(name) for name in opened.namelist()}


def test_zip_store_holds_what_torchserve_needs(build: Run, store: Path) -> None:
    outcome = build()
    assert outcome.code == 0, outcome.err
    files = contents(store / "tiny.mar")
    record = ArchiveRecord.model_validate_json(files.pop("archive.json"))
    assert record.files.keys() == files.keys()
    for path, data in files.items():
        assert record.files[path].sha256 == hashlib.sha256(data).hexdigest(), path
    assert record.identity == archive_identity(record.files, record.recipe)
    assert {path.partition("/")[0] for path in files} == {
        "MAR-INF",
        "diffusion_core",
        "diffusion_engine",
        "diffusion_handler.py",
        "model-config.yaml",
        "pipeline",
    }
    manifest = json.loads(files["MAR-INF/MANIFEST.json"])
    assert manifest["model"] == {
        "modelName": "tiny",
        "handler": "diffusion_handler.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }
    assert manifest["runtime"] == "python"
    assert outcome.sha256 == hashlib.sha256((store / "tiny.mar").read_bytes()).hexdigest()


# torch-model-archiver leaves its version.txt open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_manifest_is_the_archivers_own_but_for_its_time(build: Run, store: Path) -> None:
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_packaging_utils import ModelExportUtils

    build()
    config = ModelArchiverConfig(
        "tiny", "diffusion_handler.py", "1.0", config_file="model-config.yaml"
    )
    theirs = json.loads(ModelExportUtils.generate_manifest_json(config))
    ours = json.loads(contents(store / "tiny.mar")["MAR-INF/MANIFEST.json"])
    assert {**ours, "createdOn": None} == {**theirs, "createdOn": None}


def test_the_same_input_gives_the_same_bytes(build: Run, store: Path, pipeline: Path) -> None:
    first = build()
    for path in pipeline.rglob("*"):
        path.touch()
    again = build("--model-store", store / "other")
    assert first.sha256 == again.sha256
    assert (store / "tiny.mar").read_bytes() == (store / "other" / "tiny.mar").read_bytes()


def test_leaves_out_what_the_pipeline_does_not_name(
    build: Run, store: Path, pipeline: Path
) -> None:
    (pipeline / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02.")
    (pipeline / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"x")
    (pipeline / "unet" / "picture.png").write_bytes(b"x")
    (pipeline / "old_unet").mkdir()
    (pipeline / "old_unet" / "config.json").write_text("{}")
    (pipeline / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (pipeline / "README.txt").write_bytes(b"x" * (2 << 20))
    before = build("--model-store", store / "before")
    assert before.code == 0, before.err
    names = {name for name in contents(store / "before" / "tiny.mar") if "diffusion_" not in name}
    assert not {name for name in names if "old_unet" in name or name.endswith("png")}
    files = contents(store / "before" / "tiny.mar")
    weights = [name for name in files if name.startswith("pipeline/unet/")]
    assert sorted(weights) == [
        "pipeline/unet/config.json",
        "pipeline/unet/diffusion_pytorch_model.safetensors",
    ]
    assert "notices/README.md" in files
    assert "notices/README.txt" not in files
    record = ArchiveRecord.model_validate_json(files["archive.json"])
    assert record.licence == "apache-2.0"
    assert not [path for path in files if "__pycache__" in path]


def test_a_variant_takes_the_plain_names(build: Run, store: Path, pipeline: Path) -> None:
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    half = weights.with_name("diffusion_pytorch_model.fp16.safetensors")
    data = _half(weights)
    half.write_bytes(data)
    outcome = build("--variant", "fp16")
    assert outcome.code == 0, outcome.err
    assert "F16" in outcome.out
    files = contents(store / "tiny.mar")
    assert files["pipeline/unet/diffusion_pytorch_model.safetensors"] == data
    assert build("--variant", "fp8", "--force").code == 2


def _half(weights: Path) -> bytes:
    from safetensors.torch import load_file, save

    return save({name: tensor.half() for name, tensor in load_file(weights).items()})


def test_shards_are_all_taken(build: Run, store: Path, tmp_path: Path) -> None:
    from tiny import tiny_stable_diffusion

    sharded = tmp_path / "sharded"
    tiny_stable_diffusion().save_pretrained(sharded, max_shard_size="400KB")
    outcome = build(model=sharded)
    assert outcome.code == 0, outcome.err
    unet = [name for name in contents(store / "tiny.mar") if "/unet/" in name]
    assert len([name for name in unet if name.endswith(".safetensors")]) > 1
    assert "pipeline/unet/diffusion_pytorch_model.safetensors.index.json" in unet
    lost = next(iter(sorted((sharded / "unet").glob("*-00002-of-*.safetensors"))))
    lost.unlink()
    failed = build("--force", model=sharded)
    assert (failed.code, lost.name in failed.err) == (2, True)


def test_every_setting_is_written_out(build: Run, store: Path) -> None:
    build("--mode", "continuous")
    text = contents(store / "tiny.mar")["model-config.yaml"]
    document = yaml.safe_load(text)
    assert document["continuousBatching"] is True
    assert document["minWorkers"] == 1
    assert parse_model_config(document).handler.limits.max_size == 64


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_passes_its_inspection(build: Run, run: Run, store: Path, form: str) -> None:
    built = build("--format", form)
    assert built.code == 0, built.err
    assert [path.name for path in store.iterdir()] == [FORMATS[form]]
    seen = run("inspect", store / FORMATS[form])
    assert seen.code == 0, seen.err + seen.out
    assert "every file is as recorded" in seen.out


def test_formats_have_one_identity(build: Run, run: Run, store: Path) -> None:
    def identity(form: str) -> str:
        out = build("--format", form, "--force").out
        return next(line.split()[1] for line in out.splitlines() if line.startswith(" identity"))

    assert len({identity(form) for form in FORMATS}) == 1


def test_refuses_to_replace_unless_forced(build: Run, store: Path) -> None:
    for form in ("zip-store", "no-archive"):
        assert build("--format", form).code == 0
        refused = build("--format", form)
        assert (refused.code, "exists" in refused.err) == (2, True)
        assert build("--format", form, "--force").code == 0
    assert sorted(path.name for path in store.iterdir()) == ["tiny", "tiny.mar"]


def test_a_folder_links_its_weights_and_survives_the_source(
    build: Run, run: Run, store: Path, pipeline: Path
) -> None:
    build("--format", "no-archive")
    source = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    linked = store / "tiny" / "pipeline" / "unet" / source.name
    assert linked.samefile(source)
    assert not (store / "tiny" / "pipeline" / "unet" / "config.json").samefile(
        pipeline / "unet" / "config.json"
    )
    shutil.rmtree(pipeline)
    assert run("inspect", store / "tiny").code == 0


def test_a_linked_models_folder_is_followed(
    build: Run, store: Path, pipeline: Path, tmp_path: Path
) -> None:
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    blob = weights.rename(tmp_path / "blob")
    weights.symlink_to(blob)
    assert build().code == 0
    assert build("--format", "no-archive").code == 0
    assert (store / "tiny" / "pipeline" / "unet" / weights.name).samefile(blob)
    blob.unlink()
    dangling = build("--force")
    assert (dangling.code, str(weights) in dangling.err) == (2, True)
