"""LoRAs that a model config names are packed in the archive's own form, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from archive_tool import Outcome, Run
from archiving.lora_worker import read_lora, without_weights
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import read_model_config
from diffusion_engine.adapters import read_adapter, write_adapter
from loras import ADAPTERS, save_lora
from tiny import tiny_stable_diffusion

TO_Q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="session")
def loras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, pipeline = tmp_path_factory.mktemp("loras"), tiny_stable_diffusion()
    return {name: save_lora(pipeline, name, folder / f"{name}.safetensors") for name in ADAPTERS}


@pytest.fixture
def configured(config: Path) -> Callable[..., Path]:
    """The config with adapters of these names and files; further settings beside them."""

    def configured(files: dict[str, Any], **settings: Any) -> Path:
        document = yaml.safe_load(config.read_text())
        places = {name: str(file) for name, file in files.items()}
        document["handler"]["adapters"] = {"files": places, **settings}
        config.write_text(yaml.safe_dump(document))
        return config

    return configured


def test_adapters_are_packed(
    build: Run, run: Run, store: Path, configured: Any, loras: dict[str, Path]
) -> None:
    plain = build("--format", "no-archive", name="plain")
    configured(loras)
    made = build("--format", "no-archive")
    assert made.code == 0, made.err
    folder = store / "tiny"
    packed = read_model_config(folder / "model-config.yaml").handler.adapters
    assert packed.files == {name: f"adapters/{name}.safetensors" for name in loras}
    for name, place in packed.files.items():
        rank, alpha, _, _, text = ADAPTERS[name]
        adapter = read_adapter(folder / place)
        assert adapter.rank == rank
        assert ("text_encoder" in adapter.layers) is text
        scalings = {low.scaling for part in adapter.layers.values() for low in part.values()}
        assert scalings == {alpha / rank}
    assert run("inspect", folder).code == 0
    identities = [
        json.loads((store / name / "archive.json").read_text())["identity"]
        for name in ("plain", "tiny")
    ]
    assert plain.code == 0
    assert len(set(identities)) == 2


@pytest.mark.full
def test_the_same_adapters_make_the_same_archive(
    build: Run, configured: Any, loras: dict[str, Path]
) -> None:
    configured(loras)
    made, again = build(), build("--force", "--check")
    assert (made.code, again.code) == (0, 0)
    assert again.sha256 == made.sha256


@pytest.mark.full
def test_paths_begin_at_the_config_and_a_folder_has_diffusers_name(
    build: Run, config: Path, configured: Any, loras: dict[str, Path]
) -> None:
    folder = config.parent / "mine"
    folder.mkdir()
    source = load_file(loras["words"])
    save_file(source, folder / "pytorch_lora_weights.safetensors")
    configured({"words": "mine"})
    assert build().code == 0


def of_a_layer(place: str, rank: int = 4, width: int = 32) -> dict[str, torch.Tensor]:
    return {
        f"{place}.lora_A.weight": torch.zeros(rank, width),
        f"{place}.lora_B.weight": torch.zeros(width, rank),
    }


Change = Callable[[dict[str, Any]], dict[str, Any]]

# Told by the names of the file's tensors.
KINDS: dict[str, tuple[Change, str]] = {
    "DoRA of PEFT": (
        lambda state: {**state, f"{TO_Q}.lora_magnitude_vector": torch.ones(32)},
        "is a DoRA",
    ),
    "DoRA of kohya": (
        lambda state: {**state, "lora_unet_mid_block.dora_scale": torch.ones(32, 1)},
        "is a DoRA",
    ),
    "LoHa": (lambda state: {"lora_unet_x.hada_w1_a": torch.ones(4, 4)}, "not low-rank"),
    "biases": (lambda state: {**state, f"{TO_Q}.lora_B.bias": torch.ones(32)}, "has biases"),
    "something else": (lambda state: {**state, "norm.weight": torch.ones(4)}, "norm.weight"),
}

# Told by what diffusers makes of them.
MISFITS: dict[str, tuple[Change, str]] = {
    "a layer that is not there": (
        lambda state: {**state, **of_a_layer("unet.nowhere.to_q")},
        "unet.nowhere.to_q",
    ),
    "a layer of the text encoder that is not there": (
        lambda state: {**state, **of_a_layer("text_encoder.encoder.layers.9.self_attn.out_proj")},
        "text_encoder.encoder.layers.9.self_attn.out_proj",
    ),
    "one factor": (
        lambda state: {k: v for k, v in state.items() if k != f"{TO_Q}.lora_A.weight"},
        "only one of two factors",
    ),
    "another shape": (lambda state: {**state, **of_a_layer(TO_Q, width=40)}, "cannot read"),
    "another model's": (
        lambda state: of_a_layer("transformer.blocks.0.to_q"),
        "transformer.blocks.0.to_q",
    ),
}


@pytest.mark.parametrize(
    "change", [*KINDS, *(pytest.param(name, marks=pytest.mark.full) for name in MISFITS)]
)
def test_what_cannot_be_served_is_refused(
    build: Run,
    store: Path,
    configured: Any,
    loras: dict[str, Path],
    tmp_path: Path,
    change: str,
) -> None:
    make, reason = {**KINDS, **MISFITS}[change]
    save_file(make(load_file(loras["attention"])), tmp_path / "changed.safetensors")
    configured({"fine": loras["attention"], "changed": "changed.safetensors"})
    assert_refused(build(), store, "changed", reason)


@pytest.fixture(scope="module")
def bare(made_pipeline: Path) -> Any:
    return without_weights(made_pipeline)


@pytest.mark.parametrize("change", MISFITS)
def test_layers_that_do_not_fit(
    bare: Any, loras: dict[str, Path], tmp_path: Path, change: str
) -> None:
    make, reason = MISFITS[change]
    file = tmp_path / "changed.safetensors"
    save_file(make(load_file(loras["attention"])), file)
    with pytest.raises(ConfigError, match=re.escape(reason)):
        read_lora(bare, file)
    # What was refused leaves nothing behind.
    assert read_lora(bare, loras["attention"]).rank == 4


def test_kohyas_files_and_other_ranks_are_the_same_adapter(
    bare: Any, loras: dict[str, Path], tmp_path: Path
) -> None:
    own = load_file(loras["everywhere"])
    rank, alpha = ADAPTERS["everywhere"][:2]
    theirs = {}
    for name, tensor in own.items():
        component, _, layer = name.partition(".")
        stem, _, _ = layer.partition(".lora_")
        prefix = "lora_unet_" if component == "unet" else "lora_te_text_model_"
        place = prefix + stem.replace(".", "_")
        theirs[f"{place}.lora_{'down' if 'lora_A' in name else 'up'}.weight"] = tensor
        theirs[f"{place}.alpha"] = torch.tensor(2.0 * alpha)
    save_file(theirs, tmp_path / "kohya.safetensors")
    expected, found = (
        read_lora(bare, loras["everywhere"]),
        read_lora(bare, tmp_path / "kohya.safetensors"),
    )
    assert found.layers.keys() == expected.layers.keys()
    for component, layers in expected.layers.items():
        assert found.layers[component].keys() == layers.keys()
        for place, low in layers.items():
            other = found.layers[component][place]
            assert torch.equal(other.down, low.down)
            assert torch.equal(other.up, low.up)
            assert (low.scaling, other.scaling) == (alpha / rank, 2 * alpha / rank)
    mixed = {**load_file(loras["attention"]), **of_a_layer(TO_Q, rank=7)}
    save_file(mixed, tmp_path / "mixed.safetensors")
    ranks = {
        low.rank for low in read_lora(bare, tmp_path / "mixed.safetensors").layers["unet"].values()
    }
    assert ranks == {4, 7}


def test_the_file_of_an_archive(bare: Any, loras: dict[str, Path], tmp_path: Path) -> None:
    adapter, path = read_lora(bare, loras["everywhere"]), tmp_path / "one.safetensors"
    write_adapter(adapter, path)
    bytes_before = path.read_bytes()
    again = read_adapter(path)
    assert again.elements == adapter.elements
    write_adapter(again, path)
    assert path.read_bytes() == bytes_before
    for damaged in (bytes_before[:-9], loras["words"].read_bytes(), b""):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="not an adapter"):
            read_adapter(path)
    with pytest.raises(ConfigError, match="is missing"):
        read_adapter(tmp_path / "none.safetensors")


@pytest.mark.full
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_rank": 10}, "has rank 11, above handler.adapters.max_rank of 10"),
        ({"max_rank": 11}, ""),
    ],
)
def test_bounds(
    build: Run,
    store: Path,
    configured: Any,
    loras: dict[str, Path],
    settings: Any,
    reason: str,
) -> None:
    configured({"wide": loras["wide"]}, **settings)
    if reason:
        assert_refused(build(), store, "wide", reason)
    else:
        assert build().code == 0


@pytest.mark.parametrize("kind", ["missing", "pickle", "cut"])
def test_files_that_cannot_be_read(
    build: Run, store: Path, configured: Any, loras: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / ("one.bin" if kind == "pickle" else "one.safetensors")
    if kind != "missing":
        path.write_bytes(loras["words"].read_bytes()[:-20])
    configured({"words": path})
    assert_refused(build(), store, "words", {"pickle": "pickled", "cut": "truncated"}.get(kind, ""))


def assert_refused(outcome: Outcome, store: Path, name: str, reason: str) -> None:
    assert outcome.code == 2, outcome.err
    told = " ".join(outcome.err.split())
    assert name in told
    assert reason in told
    assert "Traceback" not in told
    assert list(store.iterdir()) == [] if store.exists() else True
