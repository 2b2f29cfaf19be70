"""model-config.yaml: TorchServe's keys and this project's `handler:` section, every key checked.

TorchServe ignores keys that it does not know, so a typo there changes nothing and says nothing.
Here an unknown key is an error, TorchServe's keys included.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diffusion_core.adapters import AdapterSettings
from diffusion_core.combinations import require_together
from diffusion_core.conditioning import ControlNetName, IPAdapterSettings
from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import Deep, FeatureCacheSettings, FirstBlock
from diffusion_core.limits import Defaults, Limits
from diffusion_core.validation import first_error

PositiveInt = Annotated[int, Field(gt=0)]
Part = Annotated[float, Field(ge=0.0, le=1.0)]

MEBIBYTE = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EngineSettings(_Section):
    """How denoiser calls are shared. `fixed_batch` pads every call to exactly that many rows."""

    max_rows: PositiveInt | None = None
    fixed_batch: PositiveInt | None = None
    prompt_cache_mb: int = Field(256, ge=0)
    max_waiting: PositiveInt = 256


class Warmup(_Section):
    """What a worker draws before it reports READY; sizes None: the pipeline's default size."""

    steps: PositiveInt = 2
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] | None = None


class Optimization(_Section):
    """What is done to the loaded models so that pictures cost less: all of it changes pixels.

    Attributes:
        quantization: how the denoiser's linear layers are held and multiplied. `int8_dynamic`
            quantizes activations too, each token by itself, so that rows do not feel their company.
        pruned_weights: part of the denoiser's weights, the smallest, that are zero.
        pruned_channels: part of the channels that were taken out of the stored denoiser, whose
            layers then have the shapes of its weights and not those of its config.
        compile: whether the denoiser is compiled; the worker's machine needs a C++ compiler.
        runtime: what runs the denoiser.
        guidance_interval: parts of the steps between which guidance is on; outside it the denoiser
            sees only the prompt's rows (Kynkäänniemi et al., 2024).
        skipped_blocks: attention blocks by name, and the timesteps (the lower included, the upper
            not) at which a row goes past them.
    """

    quantization: Literal["int8_weights", "int8_dynamic", "int4_weights", "int4_packed"] | None = (
        None
    )
    pruned_weights: float = Field(0.0, ge=0.0, lt=1.0)
    pruned_channels: float = Field(0.0, ge=0.0, lt=1.0)
    compile: bool = False
    runtime: Literal["torch", "openvino"] = "torch"
    guidance_interval: tuple[Part, Part] | None = None
    skipped_blocks: dict[str, tuple[float, float]] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Optimization:
        for name, (low, high) in (self.skipped_blocks or {}).items():
            if low >= high:
                raise ValueError(
                    f"skipped_blocks: {name}: the timesteps must begin below their end"
                )
        interval = self.guidance_interval
        if interval is not None and interval[0] >= interval[1]:
            raise ValueError("guidance_interval must begin before it ends")
        return self


class HandlerSettings(_Section):
    """The `handler:` section. What changes a picture is part of the archive's identity.

    `scheduler` replaces the folder's own; `extra_schedulers` are classes that requests may name
    beside those that diffusers calls compatible with it (LCMScheduler, for distilled weights).
    `controlnets` are folders by name; a request that names none is drawn with the first.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "xformers"] = "sdpa"
    vae_slicing: bool = False
    vae_tiling: bool = False
    offload: Literal["none", "model", "sequential"] = "none"
    channels_last: bool = False
    threads: PositiveInt | None = None
    safety_checker: bool = True
    generator_device: Literal["cpu", "device"] = "cpu"
    scheduler: str | None = None
    extra_schedulers: tuple[str, ...] = ()
    optimization: Optimization = Optimization()
    adapters: AdapterSettings = AdapterSettings()
    controlnets: dict[ControlNetName, str] = {}
    ip_adapter: IPAdapterSettings | None = None
    feature_cache: FeatureCacheSettings | None = None
    limits: Limits = Limits()
    defaults: Defaults = Defaults()
    warmup: Warmup = Warmup()
    engine: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _consistent(self) -> HandlerSettings:
        require_together(self)
        return self

    def recipe(self) -> dict[str, Any]:
        """The settings that can change a picture's pixels: they enter the identity."""
        return {
            "dtype": self.dtype,
            "attention": self.attention,
            "vae_slicing": self.vae_slicing,
            "vae_tiling": self.vae_tiling,
            "channels_last": self.channels_last,
            "safety_checker": self.safety_checker,
            "generator_device": self.generator_device,
            "scheduler": self.scheduler,
            "fixed_batch": self.engine.fixed_batch,
            # Only what is set: an archive without any keeps the identity it always had.
            **self.optimization.model_dump(mode="json", exclude_defaults=True),
            **self._feature_cache(),
        }

    def _feature_cache(self) -> dict[str, Any]:
        if self.feature_cache is None:
            return {}
        # How much is held at once changes no picture.
        return {"feature_cache": self.feature_cache.model_dump(exclude={"max_mb"})}


class ModelConfig(_Section):
    """A whole model-config.yaml. Times as TorchServe has them: batch delay in ms, timeouts in s."""

    min_workers: PositiveInt = Field(1, alias="minWorkers")
    max_workers: PositiveInt = Field(1, alias="maxWorkers")
    batch_size: PositiveInt = Field(4, alias="batchSize")
    max_batch_delay: int = Field(50, ge=0, alias="maxBatchDelay")
    response_timeout: PositiveInt = Field(300, alias="responseTimeout")
    startup_timeout: PositiveInt = Field(600, alias="startupTimeout")
    max_retry_timeout_in_sec: PositiveInt = Field(300, alias="maxRetryTimeoutInSec")
    client_timeout_in_mills: int = Field(0, ge=0, alias="clientTimeoutInMills")
    job_queue_size: PositiveInt = Field(100, alias="jobQueueSize")
    use_job_ticket: bool = Field(False, alias="useJobTicket")
    continuous_batching: bool = Field(False, alias="continuousBatching")
    device_type: Literal["cpu", "gpu", "neuron"] | None = Field(None, alias="deviceType")
    device_ids: tuple[int, ...] | None = Field(None, alias="deviceIds")
    use_venv: bool = Field(False, alias="useVenv")
    handler: HandlerSettings = HandlerSettings()

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.min_workers > self.max_workers:
            raise ValueError("minWorkers is above maxWorkers")
        if self.continuous_batching and self.max_workers > 1:
            raise ValueError(
                "maxWorkers must be 1 with continuousBatching: TorchServe stalls requests when one "
                "model has two such workers; register the archive under further names instead"
            )
        if not self.continuous_batching and self.handler.limits.max_timeout_s >= (
            self.response_timeout
        ):
            raise ValueError(
                "handler.limits.max_timeout_s must stay below responseTimeout: TorchServe kills a "
                "worker whose batch takes longer, and every request in it"
            )
        fixed = self.handler.engine.fixed_batch
        most = self.handler.engine.max_rows
        if fixed is not None and most is not None and fixed != most:
            raise ValueError("handler.engine: max_rows must equal fixed_batch where both are given")
        if self.handler.optimization.quantization == "int8_dynamic" and fixed is None:
            raise ValueError(
                "handler.optimization.quantization: int8_dynamic needs handler.engine.fixed_batch: "
                "an activation's last bit follows the number of rows in a call and decides how it "
                "is rounded, so pictures would differ with their company"
            )
        return self

    def response_bytes(self) -> int:
        """An upper bound of one response: every image as raw RGB in base64, and its JSON.

        PNG stores incompressible pixels with under 1 % of overhead; base64 makes 4 bytes of 3.
        """
        limits = self.handler.limits
        # The first image stands in the answer twice: alone, and in the list of all.
        raw = limits.max_size * limits.max_size * 3 * (limits.max_images + 1)
        return int(raw * 1.01 * 4 / 3) + MEBIBYTE


# Known to TorchServe, of no use to this handler: naming them is an error that says so.
_REFUSED = {
    "asyncCommunication": "TorchServe's async mode serves batches of one, without back-pressure",
    "sequenceBatching": "a picture is one request, not a sequence",
    "parallelType": "one pipeline runs on one device",
    "parallelLevel": "one pipeline runs on one device",
    "torchrun": "one pipeline runs on one device",
    "sequenceMaxIdleMSec": "a picture is one request, not a sequence",
    "sequenceTimeoutMSec": "a picture is one request, not a sequence",
    "maxNumSequence": "a picture is one request, not a sequence",
    "maxSequenceJobQueueSize": "a picture is one request, not a sequence",
}


def parse_model_config(document: Any, source: str = "model-config.yaml") -> ModelConfig:
    """A model config from parsed YAML; `ConfigError` names `source`, the key and its bound."""
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: must be a mapping of settings")
    for key, reason in _REFUSED.items():
        if key in document:
            raise ConfigError(f"{source}: {key} is not supported: {reason}", field=key)
    try:
        return ModelConfig.model_validate(document)
    except ValidationError as error:
        field, message, bound, kind = first_error(error)
        if kind == "extra_forbidden":
            message = "is not a setting" + _nearest(field)
        raise ConfigError(f"{source}: {field}: {message}", field=field, bound=bound) from None


def read_model_config(path: Path) -> ModelConfig:
    """The model config in the YAML file at `path`; raises `ConfigError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    return parse_model_config(document, str(path))


def _nearest(field: str) -> str:
    """A hint for a typo: the known key that looks most like the last part of `field`."""
    known = [info.alias or name for name, info in ModelConfig.model_fields.items()]
    sections = (HandlerSettings, EngineSettings, Optimization, AdapterSettings, Warmup, Limits)
    for section in (*sections, IPAdapterSettings, Defaults):
        known += list(section.model_fields)
    known += [*FirstBlock.model_fields, *Deep.model_fields]
    close = get_close_matches(field.rsplit(".", 1)[-1], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
