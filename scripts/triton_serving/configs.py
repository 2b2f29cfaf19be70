"""config.pbtxt of each model in a repository, from the templates in config/triton."""

from __future__ import annotations

from pathlib import Path
from string import Template

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import ModelConfig

TEMPLATES = Path(__file__).parents[2] / "config" / "triton"


def dynamic_config(name: str, config: ModelConfig) -> str:
    """Dynamic batching as the model config has batches: sizes, delay, bound of the queue."""
    sizes = ", ".join(str(size) for size in preferred_sizes(config.batch_size))
    return (
        _filled(
            "dynamic",
            name=name,
            batch_size=config.batch_size,
            preferred_batch_sizes=sizes,
            queue_delay_us=config.max_batch_delay * 1000,
            queue_size=config.job_queue_size,
            instances=_instances(config),
        )
        + _tensors()
    )


def decoupled_config(name: str, config: ModelConfig) -> str:
    """Several responses for a request."""
    size, instances = config.batch_size, _instances(config)
    return _filled("decoupled", name=name, batch_size=size, instances=instances) + _tensors()


def thumbnail_config(name: str, config: ModelConfig) -> str:
    """The second step of the ensemble."""
    return _filled("thumbnail", name=name, batch_size=config.batch_size)


def ensemble_config(name: str, config: ModelConfig, pictures: str, thumbnails: str) -> str:
    """A picture of the model `pictures`, then of `thumbnails`."""
    return _filled(
        "ensemble",
        name=name,
        batch_size=config.batch_size,
        pictures=pictures,
        thumbnails=thumbnails,
    )


def preferred_sizes(batch_size: int) -> list[int]:
    """Powers of two up to the largest batch, and that itself.

    With 1 among them nobody who comes alone waits for company: those who come later join at the
    next denoising step.
    """
    powers = [1 << exponent for exponent in range(batch_size.bit_length())]
    return sorted({*powers, batch_size})


def _instances(config: ModelConfig) -> str:
    """Processes that serve the model, and on what."""
    kind = config.device_type or {"cuda": "gpu", "auto": "auto"}.get(config.handler.device, "cpu")
    if kind == "neuron":
        raise ConfigError("deviceType: neuron is not served with Triton", field="deviceType")
    gpus = f" gpus: {list(config.device_ids)}" if kind == "gpu" and config.device_ids else ""
    return f"kind: KIND_{kind.upper()} count: {config.min_workers}{gpus}"


def _tensors() -> str:
    return "\n" + (TEMPLATES / "tensors.pbtxt").read_text(encoding="utf-8")


def _filled(template: str, **values: str | int) -> str:
    text = (TEMPLATES / f"{template}.pbtxt").read_text(encoding="utf-8")
    return Template(text).substitute(values)
