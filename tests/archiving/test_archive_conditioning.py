"""ControlNets, IP-Adapters and inpainting checkpoints: packed whole, or refused by name."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from archive_tool import Run
from diffusion_core.identity import ArchiveRecord, archive_identity
from diffusion_core.model_config import parse_model_config
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl
from tiny_conditioning import save_tiny_ip_adapter, tiny_controlnet
from tiny_pipelines import tiny

ADAPTER = {"weights": "adapter/ip_adapter.safetensors", "image_encoder": "adapter/image_encoder"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditioning")
    unet = tiny_stable_diffusion().unet
    tiny_controlnet(unet).save_pretrained(folder / "canny")
    save_tiny_ip_adapter(folder / "adapter", unet)
    return folder


@pytest.fixture
def steered(made: Path, tmp_path: Path, config: Path) -> Path:
    """The config's folder, with a ControlNet and an IP-Adapter in it; the config names both."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    configure(config, controlnets={"canny": "canny"}, ip_adapter=ADAPTER)
    return tmp_path


def configure(config: Path, **handler: Any) -> None:
    document = yaml.safe_load(config.read_text())
    document["handler"] |= handler
    config.write_text(yaml.safe_dump(document))


def test_both_are_packed_with_their_hashes(build: Run, store: Path, steered: Path) -> None:
    outcome = build()
    assert outcome.code == 0, outcome.err
    with zipfile.ZipFile(store / "tiny.mar") as archive:
        record = ArchiveRecord.model_validate_json(archive.read("archive.json"))
        packed = parse_model_config(yaml.safe_load(archive.read("model-config.yaml"))).handler
    assert {
        "controlnets/canny/config.json",
        "controlnets/canny/diffusion_pytorch_model.safetensors",
        "ip_adapter/ip_adapter.safetensors",
        "ip_adapter/image_encoder/config.json",
        "ip_adapter/image_encoder/model.safetensors",
    } <= record.files.keys()
    assert packed.controlnets == {"canny": "controlnets/canny"}
    assert packed.ip_adapter is not None
    assert packed.ip_adapter.weights == "ip_adapter/ip_adapter.safetensors"
    plain = {path: one for path, one in record.files.items() if path.startswith("pipeline/")}
    assert record.identity == archive_identity(record.files, record.recipe)
    assert record.identity != archive_identity(plain, record.recipe)


@pytest.mark.full
@pytest.mark.usefixtures("steered")
def test_an_archive_with_both_draws(build: Run) -> None:
    outcome = build("--check")
    assert outcome.code == 0, outcome.err


def refuse(build: Run, store: Path, *words: str) -> None:
    outcome = build()
    assert outcome.code != 0
    for word in words:
        assert word in " ".join(outcome.err.split()), outcome.err
    assert not any(store.glob("*.mar"))


def test_a_controlnet_that_is_missing(build: Run, store: Path, steered: Path) -> None:
    shutil.rmtree(steered / "canny")
    refuse(build, store, "config.json", "cannot be read")


def test_a_controlnet_that_is_cut(build: Run, store: Path, steered: Path) -> None:
    weights = steered / "canny" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refuse(build, store, "truncated")


def test_a_controlnet_of_another_family(build: Run, store: Path, steered: Path) -> None:
    tiny_controlnet(tiny_stable_diffusion_xl().unet).save_pretrained(steered / "canny")
    refuse(build, store, "handler.controlnets.canny", "cross_attention_dim is 64")


def test_a_folder_that_is_no_controlnet(build: Run, store: Path, steered: Path) -> None:
    (steered / "canny" / "config.json").write_text(json.dumps({"_class_name": "T2IAdapter"}))
    refuse(build, store, "is not a ControlNetModel")


def change(weights: Path, **renamed: str) -> None:
    """Writes the adapter again with other names of tensors; an empty one leaves it out."""
    tensors = {renamed.get(name, name): one for name, one in load_file(weights).items()}
    tensors.pop("", None)
    save_file(tensors, weights)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image_proj.proj.weight", "image_proj.perceiver_resampler.proj_in.weight", "FaceID"),
        ("ip_adapter.1.to_k_ip.weight", "ip_adapter.0.to_q_lora.down.weight", "FaceID"),
        ("image_proj.proj.weight", "", "FaceID"),
    ],
)
def test_adapters_of_other_kinds(
    build: Run, store: Path, steered: Path, old: str, new: str, words: str
) -> None:
    change(steered / ADAPTER["weights"], **{old: new})
    refuse(build, store, "handler.ip_adapter", words)


def test_a_file_that_is_no_adapter(build: Run, store: Path, steered: Path) -> None:
    save_file({"other": torch.zeros(2)}, steered / ADAPTER["weights"])
    refuse(build, store, "is not an IP-Adapter")


def test_an_adapter_of_another_family(build: Run, store: Path, steered: Path) -> None:
    save_tiny_ip_adapter(steered / "adapter", tiny_stable_diffusion_xl().unet)
    refuse(build, store, "handler.ip_adapter", "takes 64, the UNet has 32")


def test_an_image_encoder_of_another_width(build: Run, store: Path, steered: Path) -> None:
    path = steered / "adapter" / "image_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "projection_dim": 48}))
    refuse(build, store, "handler.ip_adapter", "takes 32, the encoder has 48")


def test_an_adapter_that_is_a_pickle(build: Run, store: Path, steered: Path, config: Path) -> None:
    (steered / "adapter" / "ip.bin").write_bytes(b"")
    configure(config, ip_adapter={**ADAPTER, "weights": "adapter/ip.bin"})
    refuse(build, store, "pickled weights")


def test_a_pipeline_of_another_family(build: Run, store: Path, steered: Path, config: Path) -> None:
    configure(config, limits={"min_size": 16})
    tiny("PixArtSigmaPipeline").save_pretrained(steered / "pixart", safe_serialization=True)
    outcome = build(model=steered / "pixart")
    assert outcome.code != 0
    assert "not with PixArtSigmaPipeline" in " ".join(outcome.err.split())


@pytest.mark.full
def test_a_checkpoint_that_only_inpaints(build: Run, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inpainting"
    tiny("StableDiffusionInpaintPipeline").save_pretrained(folder, safe_serialization=True)
    outcome = build("--check", model=folder)
    assert outcome.code == 0, outcome.err
    assert (store / "tiny.mar").is_file()
