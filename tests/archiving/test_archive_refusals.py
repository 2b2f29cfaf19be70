"""Bad input: refused with exit code 2 and one sentence that names the file; nothing is left."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from archive_tool import Outcome, Run


def refuse(outcome: Outcome, store: Path, *words: object) -> None:
    assert outcome.code == 2, outcome.out + outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    for word in words:
        assert str(word) in outcome.err
    assert not store.exists() or list(store.iterdir()) == []


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_missing_component(build: Run, store: Path, pipeline: Path) -> None:
    (pipeline / "vae").rename(pipeline / "vea")
    refuse(build(), store, pipeline / "vae", "missing")


def test_missing_config(build: Run, store: Path, pipeline: Path) -> None:
    (pipeline / "unet" / "config.json").unlink()
    refuse(build(), store, "unet/config.json")


def test_missing_weights(build: Run, store: Path, pipeline: Path) -> None:
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    refuse(build(), store, "unet", "no weights")


def test_missing_vocabulary(build: Run, store: Path, pipeline: Path) -> None:
    (pipeline / "tokenizer" / "tokenizer.json").unlink()
    refuse(build(), store, "tokenizer", "vocabulary")


@pytest.mark.parametrize("cut", [-1, -1000, 4])
def test_truncated_weights(build: Run, store: Path, pipeline: Path, cut: int) -> None:
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:cut])
    refuse(build(), store, weights, "truncated")


def test_weights_with_bytes_to_spare(build: Run, store: Path, pipeline: Path) -> None:
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")
    refuse(build(), store, weights, "longer")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    ],
)
def test_broken_headers(build: Run, store: Path, pipeline: Path, header: bytes) -> None:
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refuse(build(), store, weights)


def test_pickle(build: Run, store: Path, pipeline: Path) -> None:
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    refuse(build(), store, weights.with_suffix(".bin"), "can run any code")


def test_pickled_checkpoint(build: Run, store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x02.")
    refuse(build(model=tmp_path / "model.ckpt"), store, "can run any code")


def test_config_with_a_typo(build: Run, store: Path, config: Path) -> None:
    config.write_text("batchsize: 4\n")
    refuse(build(), store, config, "did you mean batchSize")


def test_continuous_mode_with_two_workers(build: Run, store: Path, config: Path) -> None:
    config.write_text("maxWorkers: 2\n")
    refuse(build("--mode", "continuous"), store, config, "maxWorkers must be 1")


def test_defaults_beyond_the_limits(build: Run, store: Path, config: Path) -> None:
    config.write_text("handler: {limits: {min_size: 64, max_size: 128}}\n")
    refuse(build(), store, config, "width")


def test_pictures_too_large_for_the_server(build: Run, store: Path, tmp_path: Path) -> None:
    properties = tmp_path / "config.properties"
    properties.write_text("max_response_size=1000\n")
    refuse(build(), store, properties, "set max_response_size=")
    properties.write_text("max_response_size=100000000\n")
    assert build().code == 0


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "a b", "a\n", "-a", "ä", "a" * 201])
def test_bad_names(build: Run, store: Path, name: str) -> None:
    assert build(f"--version={name}").code == 2
    refuse(build(f"--name={name}"), store, "name")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_unreadable_index(build: Run, store: Path, pipeline: Path, text: str) -> None:
    (pipeline / "model_index.json").write_bytes(text.encode("latin-1"))
    refuse(build(), store, "model_index.json")


def test_index_that_leaves_the_folder(build: Run, store: Path, pipeline: Path) -> None:
    edit(pipeline / "model_index.json", **{"../x": ["diffusers", "AutoencoderKL"]})
    refuse(build(), store, "../x")


def test_shard_outside_its_folder(build: Run, store: Path, pipeline: Path) -> None:
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    index = pipeline / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    refuse(build(), store, index, "outside")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"_class_name": "NoSuchPipeline"}, "NoSuchPipeline"),
        ({"_class_name": "StableDiffusionImg2ImgPipeline"}, "not a text-to-image or inpainting"),
        ({"_class_name": "StableDiffusionControlNetPipeline"}, "control image"),
        ({"_class_name": None}, "_class_name"),
        ({"unet": ["diffusers", "NoSuchModel"]}, "NoSuchModel"),
        ({"text_encoder": ["transformers", "NoSuchModel"]}, "NoSuchModel"),
        ({"unet": ["my_code", "MyUNet"]}, "my_code"),
        ({"unet": ["..", "MyUNet"]}, "is not a library"),
        ({"unet": "UNet2DConditionModel"}, "names no unet"),
        ({"unet": [None, None]}, "names no unet"),
        ({"unet": ["diffusers"]}, "a library and a class"),
        ({"other": ["diffusers", "AutoencoderKL"]}, "takes no component other"),
    ],
)
def test_wrong_index(
    build: Run, store: Path, pipeline: Path, changes: dict[str, object], word: str
) -> None:
    edit(pipeline / "model_index.json", **changes)
    refuse(build(), store, "model_index.json", word)


def test_what_is_no_model(build: Run, store: Path, tmp_path: Path) -> None:
    refuse(build(model=tmp_path / "absent"), store, "absent")
    (tmp_path / "empty").mkdir()
    refuse(build(model=tmp_path / "empty"), store, "model_index.json")
    (tmp_path / "notes.txt").write_text("")
    refuse(build(model=tmp_path / "notes.txt"), store, "notes.txt")


def test_a_hub_that_cannot_be_reached(
    build: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = "there is no folder models/mien, and the hub"
    refuse(build(model="models/mien"), store, told, "cannot be reached")


def test_source_date_epoch_must_be_a_number(
    build: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    refuse(build(), store, "SOURCE_DATE_EPOCH")


def test_a_feature_cache_that_no_denoiser_here_can_have(
    build: Run, store: Path, config: Path
) -> None:
    cached = "  feature_cache: {kind: first_block, threshold: 0.1}\n"
    config.write_text(config.read_text() + cached)
    words = (config, "UNet2DConditionModel", "FluxTransformer2DModel")
    refuse(build("--config", config), store, *words)
