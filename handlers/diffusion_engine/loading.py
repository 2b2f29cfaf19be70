"""Loads a diffusers pipeline from an archive's folder as the model config says."""

from __future__ import annotations

import inspect
import logging
import os
import platform
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from diffusion_core.capabilities import Task
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import HandlerSettings
from diffusion_core.read_ahead import read_ahead
from diffusion_engine import recipes
from diffusion_engine.schedulers import scheduler_class

logger = logging.getLogger(__name__)

# Of the PCI ID database: a maker, and how the classes of display controllers begin.
_NVIDIA = "0x10de"
_DISPLAY = "0x03"


def choose_device(setting: str, gpu_id: int | None = None) -> torch.device:
    """The device of a worker: `auto` takes CUDA, then Apple's, then the CPU.

    Where `auto` comes down to the CPU of a machine that has an NVIDIA GPU, a warning says so.
    """
    if setting == "auto":
        if torch.cuda.is_available():
            setting = "cuda"
        else:
            setting = "mps" if torch.backends.mps.is_available() else "cpu"
        if setting == "cpu" and has_nvidia():
            _warn_of_unused_gpu()
    if setting == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("handler.device: cuda is set but torch finds no CUDA device")
        return torch.device("cuda", gpu_id or 0)
    return torch.device(setting)


def has_nvidia(root: Path = Path("/")) -> bool:
    """Whether there is an NVIDIA GPU, by its driver's files, or by the bus without a driver."""
    if any(root.glob("dev/nvidia[0-9]*")):
        return True
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        try:
            maker, kind = (file.read_text().strip() for file in (vendor, vendor.with_name("class")))
        except OSError:
            continue
        if maker == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False


@lru_cache(maxsize=1)
def _warn_of_unused_gpu() -> None:
    """Once a process."""
    built = torch.version.cuda
    why = (
        f"it is built for CUDA {built} and finds no device: see nvidia-smi, and whether the driver "
        "is as new"
        if built
        else "it is a build without CUDA: see TORCH_INDEX of make install"
    )
    logger.warning(
        "this machine has an NVIDIA GPU that torch %s cannot use, so the CPU draws: %s; "
        "handler.device: cuda makes that an error, cpu makes it meant",
        torch.__version__,
        why,
    )


def device_name(device: torch.device) -> str:
    """The maker's name of a device: two of one type may differ tenfold in speed."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load_pipeline(folder: Path, settings: HandlerSettings, device: torch.device) -> Any:
    """The text-to-image pipeline in `folder`, on `device`, silent and ready to be served.

    Raises `ConfigError` where a setting asks for what is not there.
    """
    # An archive is complete: nothing may be looked up on a hub while a worker loads.
    os.environ["HF_HUB_OFFLINE"] = "1"
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    from diffusers import DiffusionPipeline

    silence_libraries()
    dtype = getattr(torch, settings.dtype)
    pipeline = DiffusionPipeline.from_pretrained(
        str(folder),
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        **recipes.parts_of_its_own(folder, settings.optimization, dtype),
        **_without_safety_checker(settings),
    )
    pipeline.set_progress_bar_config(disable=True)
    if settings.scheduler is not None:
        chosen = scheduler_class(settings.scheduler)
        pipeline.scheduler = chosen.from_config(pipeline.scheduler.config)
    _place(pipeline, settings, device)
    _optimise(pipeline, settings)
    recipes.apply(pipeline, settings, device)
    return pipeline


def read_weights_ahead(folder: Path) -> None:
    """Has the system read the weights in `folder` into its page cache, on a thread of its own.

    Importing the pipeline's libraries takes seconds in which the disk has nothing else to do.
    """

    def read() -> None:
        for file in sorted(folder.rglob("*.safetensors")):
            with file.open("rb") as weights:
                read_ahead(weights.fileno(), 0, os.fstat(weights.fileno()).st_size)

    threading.Thread(target=read, name="read-ahead", daemon=True).start()


def with_tasks(pipeline: Any) -> dict[Task, Any]:
    """The pipeline, and its other forms of text to image, image to image and inpainting where
    diffusers has them.

    All are built over the same models: no weight is loaded twice. Models that were trained to see
    a picture and its mask beside the latents can do nothing but inpaint.
    """
    own = type(pipeline).__name__
    tasks: dict[Task, Any] = {}
    for task in _INPAINTING_ALONE if _sees_masks(pipeline) else tuple(SUFFIXES):
        form = _form_of(own, task)
        if form is type(pipeline):
            tasks[task] = pipeline
        elif form is not None:
            tasks[task] = over_the_same_models(form, pipeline)
            tasks[task].set_progress_bar_config(disable=True)
    return tasks or {"text-to-image": pipeline}


SUFFIXES: dict[Task, str] = {
    "text-to-image": "",
    "image-to-image": "Img2Img",
    "inpainting": "Inpaint",
}
"""What the class of a pipeline's form for a task has between its stem and `Pipeline`."""

_INPAINTING_ALONE: tuple[Task, ...] = ("inpainting",)


def _sees_masks(pipeline: Any) -> bool:
    """Whether the denoiser's channels are latents, a mask, and the masked picture's latents."""
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    latents = getattr(getattr(getattr(pipeline, "vae", None), "config", None), "latent_channels", 0)
    channels = getattr(getattr(denoiser, "config", None), "in_channels", None)
    return bool(latents) and channels == 2 * latents + 1


def _form_of(name: str, task: Task) -> Any:
    """The class of a pipeline's form for a task, None if there is none.

    diffusers' own table of forms imports every pipeline there is, most of a second of a worker's
    start; it is asked only where the usual name leads nowhere.
    """
    import diffusers

    form = getattr(diffusers, f"{form_stem(name)}{SUFFIXES[task]}Pipeline", None)
    if form is not None:
        return form
    if task == "text-to-image":
        return getattr(diffusers, name, None)
    from diffusers.pipelines import auto_pipeline

    mapping = {
        "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    }[task]
    return auto_pipeline._get_task_class(mapping, name, throw_error_if_not_exist=False)


def form_stem(name: str) -> str:
    """What the names of a pipeline's forms begin with."""
    stem = name.removesuffix("Pipeline")
    for suffix in filter(None, SUFFIXES.values()):
        stem = stem.removesuffix(suffix)
    return stem


def over_the_same_models(form: Any, pipeline: Any, **others: Any) -> Any:
    """A pipeline of class `form` over another's models, and `others` that it has not."""
    # diffusers' own `from_pipe` casts the models it shares, to float32 when no dtype is named.
    taken = inspect.signature(form.__init__).parameters
    parts = {**pipeline.config, **pipeline.components, **others}
    return form(**{name: part for name, part in parts.items() if name in taken})


def silence_libraries() -> None:
    """Only errors from diffusers and transformers: their warnings quote prompts."""
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def library_versions(settings: HandlerSettings) -> dict[str, str]:
    """Versions of the libraries that decide a picture's last bits."""
    import diffusers
    import transformers

    return {
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        **recipes.libraries(settings.optimization),
    }


def _without_safety_checker(settings: HandlerSettings) -> dict[str, Any]:
    # A folder without one loads all the same; naming it for a pipeline that has none is an error.
    if settings.safety_checker:
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def _place(pipeline: Any, settings: HandlerSettings, device: torch.device) -> None:
    if settings.offload == "none":
        pipeline.to(device)
        return
    if device.type == "cpu":
        raise ConfigError("handler.offload: needs a GPU to offload from")
    if settings.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)


def _optimise(pipeline: Any, settings: HandlerSettings) -> None:
    vae = getattr(pipeline, "vae", None)
    if settings.vae_slicing and vae is not None:
        vae.enable_slicing()
    if settings.vae_tiling and vae is not None:
        vae.enable_tiling()
    if settings.attention == "xformers":
        _enable_xformers(pipeline)
    if settings.attention == "eager":
        _take_plain_attention(pipeline)
    if settings.channels_last:
        for name in ("unet", "vae"):
            model = getattr(pipeline, name, None)
            if model is not None:
                model.to(memory_format=torch.channels_last)


def _take_plain_attention(pipeline: Any) -> None:
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        raise ConfigError("handler.attention: eager is for UNets; this pipeline has a transformer")
    from diffusers.models.attention_processor import AttnProcessor

    unet.set_attn_processor(AttnProcessor())


def _enable_xformers(pipeline: Any) -> None:
    if not torch.cuda.is_available():
        raise ConfigError("handler.attention: xformers needs CUDA; set it to sdpa on this machine")
    try:
        pipeline.enable_xformers_memory_efficient_attention()
    except ImportError:
        raise ConfigError(
            "handler.attention: xformers is set but not installed: run "
            "`python3 scripts/install.py cuda` where its worker is"
        ) from None
