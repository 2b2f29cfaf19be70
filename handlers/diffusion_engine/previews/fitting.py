"""Fits a pipeline's previews to its own VAE, once for an archive: the map is kept on disk."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffusion_core.errors import CancelledError
from diffusion_core.identity import digest
from diffusion_engine.call import Job, PipelineCall, Step, Ticket
from diffusion_engine.faults import classify
from diffusion_engine.previews.colours import LatentPreview, as_grid
from diffusion_engine.previews.scenes import dead_leaves
from diffusion_engine.served import ServedPipeline
from diffusion_engine.stand_ins import ModelCall

logger = logging.getLogger(__name__)

_SCENES = 16
_SIDE = 16
"""Latents on a side of a scene: what a decoder does is local, and sixteen times 256 are enough."""

_LIKE = 0.01
"""How far decoded latents may be from a scale and a shift of those the pipeline shows."""


class PreviewFitError(Exception):
    """Nothing that this pipeline shows at its steps is a picture's latents."""


def obtain_preview(
    served: ServedPipeline, job: Job, conditions: Mapping[str, Any], folder: Path
) -> LatentPreview | None:
    """The kept map of these conditions, or one that is fitted now, and kept in `folder`.

    None where the pipeline shows no latents that could be pictures. Run it while nothing else uses
    the models.

    Args:
        job: a picture of any size that the pipeline draws.
    """
    path = folder / f"{digest({**conditions, 'previews': 1})}.preview.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    try:
        with torch.no_grad():
            fitted = fit_preview(served, job)
    except Exception as error:
        # It draws, so it can be served: what is lost is the previews.
        if classify(error) == "device":
            raise
        logger.warning("no previews: %s: %s", type(error).__name__, error)
        return None
    finally:
        served.forget_requests()
    _write(path, fitted)
    return fitted


def fit_preview(served: ServedPipeline, job: Job) -> LatentPreview:
    """A map fitted to what the pipeline's VAE makes of scenes that it encodes and decodes.

    Where decoded latents are no scale and shift of those that the pipeline shows, the fit is to
    the one picture that the job's latents decode to.

    Raises `PreviewFitError` where the pipeline shows no latents, `ValueError` where they are no
    picture.
    """
    size = (int(job.shape.height), int(job.shape.width)) if job.shape else (1, 1)
    shown, decoding = _to_the_decoder(served, job)
    grid = as_grid(shown, *size).float().cpu()
    asked = decoding.args[0] if decoding.args else decoding.kwargs["z"]
    scaling = _scaling(grid, asked.float().cpu())
    with _Vae(decoding) as vae:
        if scaling is None:
            return LatentPreview.fit(grid, vae.decode(asked))
        side = _SIDE * max(1, round(size[0] / grid.shape[-2]))
        latents = vae.encode(dead_leaves(_SCENES, side))
        images = torch.cat([vae.decode(one[None]) for one in latents])
    flat = latents.float().cpu().reshape(_SCENES, grid.shape[1], *latents.shape[-2:])
    return LatentPreview.fit((flat - scaling.shift) / scaling.scale, images)


class _Scaling(NamedTuple):
    """Decoded latents are `scale` · shown + `shift`, by channel: [1, C, 1, 1]."""

    scale: torch.Tensor
    shift: torch.Tensor


class _Vae:
    """The VAE as the pipeline runs it: in the dtype that it asks for, and then as it was."""

    def __init__(self, decoding: ModelCall) -> None:
        self._model = decoding.model
        asked = decoding.args[0] if decoding.args else decoding.kwargs["z"]
        self._video = asked.ndim == 5
        self._dtype = decoding.dtype or self._model.dtype
        self._kept = self._model.dtype

    def __enter__(self) -> _Vae:
        self._model.to(dtype=self._dtype)
        return self

    def __exit__(self, *_error: object) -> None:
        self._model.to(dtype=self._kept)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents of images [n, 3, H, W] in [0, 1], as `decode` takes them."""
        inputs = (2 * images - 1).to(self._model.device, self._dtype)
        encoded = self._model.encode(inputs[:, :, None] if self._video else inputs)
        # Autoencoders give a distribution, deep-compression ones and VQ ones latents.
        if hasattr(encoded, "latent_dist"):
            latents: torch.Tensor = encoded.latent_dist.mode()
        else:
            latents = encoded.latent if hasattr(encoded, "latent") else encoded.latents
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images [n, 3, H, W] in [0, 1] of latents."""
        inputs = latents.to(self._model.device, self._dtype)
        decoded: torch.Tensor = self._model.decode(inputs).sample
        images = decoded[:, :, 0] if decoded.ndim == 5 else decoded
        return (images.float().cpu() / 2 + 0.5).clamp(0, 1)


def _to_the_decoder(served: ServedPipeline, job: Job) -> tuple[torch.Tensor, ModelCall]:
    """The latents that the pipeline shows after its last step, and the decoding it then asks for.

    The denoiser is answered with zeros where its rule knows how: any latents will do.
    """
    shown: list[Step] = []
    listening = replace(job, on_step=shown.append)
    pipeline = served.for_job(job)
    call = PipelineCall(Ticket(listening, 0.0), pipeline, 0.0)
    call.start()
    while call.pending is not None and call.pending.kind != "decode":
        pending = call.pending
        knows = pending.kind == "denoise" and served.rules[pending.component] is not None
        call.answer(pipeline.zeros(pending) if knows else pending.run())
    decoding = call.pending
    call.abort(CancelledError("fitted"))
    latents = shown[-1].latents if shown else None
    if decoding is None or latents is None:
        raise PreviewFitError("the pipeline shows no latents, or decodes none")
    return latents, decoding


def _scaling(grid: torch.Tensor, decoded: torch.Tensor) -> _Scaling | None:
    """How the latents that are decoded follow from those that are shown; None if otherwise."""
    if decoded.numel() != grid.numel():
        return None
    seen = grid.movedim(1, 0).flatten(1)
    wanted = decoded.reshape(grid.shape).movedim(1, 0).flatten(1)
    middle, wanted_middle = seen.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    around = seen - middle
    scale = (around * (wanted - wanted_middle)).sum(1, keepdim=True) / around.square().sum(
        1, keepdim=True
    )
    shift = wanted_middle - scale * middle
    if not torch.allclose(scale * seen + shift, wanted, atol=_LIKE * float(wanted.std())):
        return None
    return _Scaling(scale.reshape(1, -1, 1, 1), shift.reshape(1, -1, 1, 1))


def _read(path: Path) -> LatentPreview | None:
    try:
        tensors = load_file(path)
        return LatentPreview(tensors["weight"], tensors["bias"])
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        logger.warning("a kept preview is ignored: %s: %s", path, type(error).__name__)
        return None


def _write(path: Path, preview: LatentPreview) -> None:
    tensors = {"weight": preview.weight, "bias": preview.bias}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, suffix=".part") as folder:
            save_file(tensors, Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)
    except (OSError, SafetensorError) as error:
        # safetensors has an error of its own for a full disk.
        logger.warning("the previews are not kept: %s: %s", path.parent, error)
