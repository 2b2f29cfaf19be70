"""The catalogue: every variant is a config that parses, and an identity of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import ModelConfig, parse_model_config
from optimizing.configs import read_document
from optimizing.folders import prepare
from optimizing.plan import prompts_of
from optimizing.quality import compare, farthest
from optimizing.variants import ORIGINAL, catalogue, merged
from tiny import save_tiny_stable_diffusion


def test_every_variant_is_a_config_with_a_recipe_of_its_own() -> None:
    known = catalogue(ModelConfig(), tiny_vae=Path("somewhere"), emoji=True)
    assert next(iter(known)) == ORIGINAL
    recipes = {one.recipe for one in known.values()}
    assert len(recipes) == len(known)
    original = ModelConfig().handler
    for name, variant in known.items():
        handler = parse_model_config({"handler": variant.handler}).handler
        # Fewer steps are a request's default, and another VAE is other files.
        told = handler.recipe() != original.recipe() or handler.defaults != original.defaults
        assert told or variant.folder or variant.skips or name == ORIGINAL


def test_what_is_not_the_demonstration_is_not_trained_on_its_data() -> None:
    assert not any(
        name.startswith("channels") and name != "channels-last" for name in catalogue(ModelConfig())
    )


def test_a_patch_leaves_what_it_does_not_name() -> None:
    document = {"batchSize": 8, "handler": {"limits": {"max_steps": 9}, "dtype": "float32"}}
    patched = merged(document, {"handler": {"limits": {"min_steps": 2}, "dtype": "bfloat16"}})
    assert patched == {
        "batchSize": 8,
        "handler": {"limits": {"max_steps": 9, "min_steps": 2}, "dtype": "bfloat16"},
    }
    assert document["handler"]["dtype"] == "float32"  # type: ignore[index]


def test_paths_of_a_config_hold_wherever_a_variant_is_written(tmp_path: Path) -> None:
    file = tmp_path / "model.yaml"
    file.write_text("handler: {adapters: {files: {ink: loras/ink.safetensors}}}\n")
    document = read_document(file)
    place = str(tmp_path / "loras" / "ink.safetensors")
    assert document["handler"]["adapters"]["files"] == {"ink": place}
    assert read_document(None) == {}
    file.write_text("batchSise: 4\n")
    with pytest.raises(ConfigError, match="batchSize"):
        read_document(file)


def test_distances_are_those_of_the_pictures() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 240, (32, 32, 3), dtype=np.uint8)
    picture, brighter = Image.fromarray(pixels), Image.fromarray(pixels + 10)
    same = compare([picture], [picture])
    assert (same.psnr, same.ssim, same.flip) == (None, 1.0, 0.0)
    moved = compare([picture, picture], [brighter, picture])
    assert moved.psnr == pytest.approx(10 * np.log10(255**2 / 50))
    assert moved.worst_ssim < moved.ssim < 1
    assert moved.flip > 0
    assert farthest(picture, brighter) == 10


def test_prompts_come_from_a_file_where_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\n a dog \n")
    assert prompts_of("any", file, 3) == (("a cat", "a dog", "a cat"), False)
    prompts, names = prompts_of("any", None, 4)
    assert len(set(prompts)) == 4
    assert not names
    file.write_text("\n")
    with pytest.raises(ConfigError, match="no prompt"):
        prompts_of("any", file, 1)


def test_zeros_are_in_the_folder_s_weights(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    source = save_tiny_stable_diffusion(tmp_path / "source")
    told: list[str] = []
    folder = prepare(source, {"mask": 0.5}, tmp_path / "masked", told.append)
    assert told == ["setting 50% of the weights to zero"]
    weight = UNet2DConditionModel.from_pretrained(folder / "unet").mid_block.resnets[0].conv1.weight
    assert int((weight == 0).sum()) == weight.numel() // 2
    # A second run finds what the first one made.
    assert prepare(source, {"mask": 0.5}, tmp_path / "masked", told.append) == folder
    assert len(told) == 1
    # Weights that were trained again are other weights.
    (source / "unet" / "diffusion_pytorch_model.safetensors").touch()
    again = prepare(source, {"mask": 0.5}, tmp_path / "masked", told.append)
    assert again != folder
    assert again.is_dir()
    assert not folder.exists()


def test_a_folder_that_is_no_tiny_vae_is_refused(tmp_path: Path) -> None:
    source = save_tiny_stable_diffusion(tmp_path / "source")
    for given in (tmp_path / "none", source / "vae"):
        with pytest.raises(ConfigError, match="AutoencoderTiny"):
            prepare(source, {"tiny_vae": str(given)}, tmp_path / "changed", lambda _: None)
        assert not list(tmp_path.glob("*changed*"))
