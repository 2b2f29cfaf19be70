"""Previews: the clean latents that are foreseen, and the colours that a VAE gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rig import Asked, Rig, apart, finish, instead, rig
from safetensors import SafetensorError
from transformer_rig import stage as family_stage

from diffusion_core.profile import Shape
from diffusion_engine.call import Step
from diffusion_engine.previews.colours import LatentPreview, as_grid
from diffusion_engine.previews.fitting import fit_preview, obtain_preview
from diffusion_engine.previews.forecast import foreseen, listen
from diffusion_engine.previews.scenes import dead_leaves
from diffusion_engine.profiling import capture
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from diffusion_engine.snapshot import take

# Those that tell the clean latents themselves, and those that keep them for their next step.
TELLING = ("DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete")
KEEPING = ("DPMSolverMultistep", "UniPCMultistep", "DPMSolverSinglestep")


def scheduler(name: str, **settings: Any) -> Any:
    import diffusers

    made = getattr(diffusers, f"{name}Scheduler")(**settings)
    made.set_timesteps(8)
    return made


def steps(made: Any) -> Iterator[Any]:
    """Takes the scheduler's steps with answers at random; yields what each returned."""
    chance = torch.Generator().manual_seed(3)
    sample = torch.randn(2, 4, 8, 8, generator=chance) * made.init_noise_sigma
    for timestep in made.timesteps:
        made.scale_model_input(torch.cat([sample] * 2), timestep)
        answer = torch.randn(2, 4, 8, 8, generator=chance)
        result = made.step(answer, timestep, sample, return_dict=False)
        yield result
        sample = result[0]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", TELLING)
def test_it_is_what_the_scheduler_says(name: str, kind: str) -> None:
    clipping = {"clip_sample": False} if name.startswith("DDP") or name == "DDIM" else {}
    made = scheduler(name, prediction_type=kind, **clipping)
    listen(made)
    for result in steps(made):
        clean = foreseen(made)
        assert clean is not None
        # Karras-like sigmas are told in float32 and looked up in a table of a thousand.
        assert torch.allclose(clean, result[1].float(), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", KEEPING)
def test_it_is_what_a_solver_keeps(name: str, kind: str) -> None:
    made = scheduler(name, prediction_type=kind)
    listen(made)
    for _ in steps(made):
        clean = foreseen(made)
        assert clean is not None
        # They round times to whole numbers for the model, and not for themselves.
        assert float((clean - made.model_outputs[-1]).norm() / clean.norm()) < 0.02


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FlowMatchEulerDiscrete", {"shift": 3.0}),
        ("FlowMatchHeunDiscrete", {}),
        ("DPMSolverMultistep", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    ],
)
def test_a_flow_is_followed_to_its_end(name: str, settings: dict[str, Any]) -> None:
    made = scheduler(name, **settings)
    listen(made)
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    sample = noise
    for timestep in made.timesteps:
        sample = made.step(noise - clean, timestep, sample, return_dict=False)[0]
        found = foreseen(made)
        assert found is not None
        # One rounds times to whole ones of the thousand it was trained at, and begins at the last.
        rounding = float((noise - clean).abs().max()) / made.config.num_train_timesteps
        assert torch.allclose(found, clean, atol=2 * rounding)


def test_listening_is_no_state() -> None:
    made, other = scheduler("UniPCMultistep"), scheduler("UniPCMultistep")
    listen(made)
    for _ in steps(made):
        pass
    for _ in steps(other):
        pass
    states = [take(8, torch.zeros(1), one, ()) for one in (made, other)]
    assert states[0].scheduler == states[1].scheduler
    assert type(made).__name__ == "UniPCMultistepScheduler"
    assert isinstance(made, type(other))


def test_the_last_step_foresees_the_picture() -> None:
    stage = rig("sd")
    seen: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []

    def on_step(step: Step) -> None:
        seen.append((step.foreseen(), step.latents))

    engine = stage.engine()
    asked = Asked(scheduler="EulerDiscreteScheduler", steps=4)
    engine.submit(stage.job(asked, on_step=on_step))
    finish(engine)
    far, near = ([clean, latents] for clean, latents in (seen[0], seen[-1]))
    assert apart(*near) < 1e-3
    assert apart(*far) > 0.1


def test_a_linear_decoder_is_found() -> None:
    chance = torch.Generator().manual_seed(1)
    grid = torch.randn(3, 4, 12, 12, generator=chance)
    paint = torch.randn(3, 4, generator=chance) / 20
    images = torch.einsum("oc,nchw->nohw", paint, grid) + 0.5
    large = torch.nn.functional.interpolate(images, scale_factor=8)
    shown = torch.from_numpy(LatentPreview.fit(grid, large)(grid[0], 96, 96))
    assert shown.shape == (48, 48, 3)
    exact = torch.nn.functional.interpolate(images[:1], scale_factor=4)[0].permute(1, 2, 0)
    assert float((shown / 255 - exact.clamp(0, 1)).abs().max()) <= 1 / 255


def test_packed_latents_are_unpacked() -> None:
    from diffusers import FluxPipeline

    grid = torch.randn(1, 16, 8, 12)
    packed = FluxPipeline._pack_latents(grid, 1, 16, 8, 12)
    assert torch.equal(as_grid(packed, 64, 96), grid)
    with pytest.raises(ValueError, match="not laid out"):
        as_grid(torch.randn(1, 7, 5), 8, 8)


def test_scenes_are_the_same_everywhere() -> None:
    one, two = dead_leaves(2, 16), dead_leaves(2, 16)
    assert torch.equal(one, two)
    assert 0 <= float(one.min()) < float(one.max()) <= 1
    assert not torch.equal(one, dead_leaves(2, 16, seed=1))


def stages() -> dict[str, Rig]:
    return {
        "sd": rig("sd"),
        "sdxl": rig("sdxl"),
        "flux": family_stage("flux-dev"),
        "qwen-image": family_stage("qwen-image"),
        "sana": family_stage("sana"),
        "pixart": family_stage("pixart-sigma"),
    }


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux", "qwen-image", "sana", "pixart"])
def test_every_vae_is_fitted_on_scenes(name: str) -> None:
    stage = stages()[name]
    served = ServedPipeline(stage.tasks, PromptCache(1 << 20))
    encoded: list[int] = []

    def counted(original: Any, images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        encoded.append(len(images))
        return original(images, *args, **kwargs)

    kept = stage.vae.dtype
    job = replace(stage.job(Asked(steps=2, guidance=1.0)), shape=Shape(32, 32))
    with torch.no_grad(), instead(stage.vae, "encode", counted):
        preview = fit_preview(served, job)
    assert len(encoded) == 1
    assert encoded[0] > 1
    assert torch.isfinite(preview.weight).all()
    assert stage.vae.dtype == kept


def test_a_fit_is_kept_on_disk(tmp_path: Path) -> None:
    stage = rig("sd")
    served = ServedPipeline(stage.tasks, PromptCache(1 << 20))
    job = replace(stage.job(Asked(steps=2)), shape=Shape(32, 32))
    first = obtain_preview(served, job, {"identity": "a"}, tmp_path)
    (file,) = tmp_path.iterdir()
    assert first is not None

    def never(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("the VAE ran again")

    with instead(stage.vae, "decode", never):
        again = obtain_preview(served, job, {"identity": "a"}, tmp_path)
        # Without its VAE another model has no previews, and is served all the same.
        assert obtain_preview(served, job, {"identity": "b"}, tmp_path) is None
    assert again is not None
    assert torch.equal(first.weight, again.weight)
    file.write_bytes(b"not a map")
    assert obtain_preview(served, job, {"identity": "a"}, tmp_path) is not None


def test_a_full_disk_costs_the_copy_that_is_kept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = rig("sd")
    served = ServedPipeline(stage.tasks, PromptCache(1 << 20))
    job = replace(stage.job(Asked(steps=2)), shape=Shape(32, 32))

    def full(_tensors: Any, path: Any) -> None:
        Path(path).write_bytes(b"the half of it")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("diffusion_engine.previews.fitting.save_file", full)
    assert obtain_preview(served, job, {"identity": "a"}, tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_vae_that_its_pipeline_upcasts_is_fitted_and_measured() -> None:
    """XL's inpainting encodes the masked image in float32 whatever the others run in."""
    stage = rig("sdxl", dtype=torch.bfloat16)
    stage.vae.register_to_config(force_upcast=True)
    served = ServedPipeline(stage.tasks, PromptCache(1 << 20))
    job = replace(stage.job(Asked(task="inpainting", steps=2)), shape=Shape(32, 32))
    try:
        with torch.no_grad():
            assert torch.isfinite(fit_preview(served, job).weight).all()
            assert capture(served, job).kind == "denoise"
    finally:
        stage.vae.register_to_config(force_upcast=False)
    assert stage.vae.dtype == torch.bfloat16


def test_a_scheduler_that_takes_more_than_others_is_heard() -> None:
    import diffusers

    made = diffusers.CogVideoXDPMScheduler(prediction_type="epsilon")
    made.set_timesteps(4)
    listen(made)
    sample, before = torch.randn(1, 4, 8, 8), None
    for number, timestep in enumerate(made.timesteps):
        back = made.timesteps[number - 1] if number else None
        answer = torch.zeros_like(sample)
        sample, before = made.step(answer, before, timestep, back, sample, return_dict=False)
        clean = foreseen(made)
        assert clean is not None
        assert torch.isfinite(clean).all()
