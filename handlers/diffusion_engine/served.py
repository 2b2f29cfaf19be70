"""The served pipeline: shared models, and a cheap copy of the pipeline for each request."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffusion_core.capabilities import Task
from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import DENOISERS, Deep, FirstBlock
from diffusion_core.limits import Limits
from diffusion_engine.adapters import AdapterBank
from diffusion_engine.conditioning import (
    CONTROLNET,
    NO_CONDITIONING,
    Conditioning,
    ControlNetStandIn,
    no_residuals,
)
from diffusion_engine.feature_cache.cache import FeatureCache
from diffusion_engine.feature_cache.features import Features
from diffusion_engine.noise import draw_from
from diffusion_engine.offload import Offload
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.recipes.guidance import IntervalStandIn
from diffusion_engine.rules import JoiningRule, rule_for
from diffusion_engine.schedulers import Schedulers
from diffusion_engine.stand_ins import (
    ImageEncoderStandIn,
    ModelCall,
    StandIn,
    TextEncoderStandIn,
    TokenizerStandIn,
    VaeStandIn,
)

if TYPE_CHECKING:
    from diffusion_engine.call import Job

_VAES = ("vae", "movq", "vqvae", "vqgan")


class ServedPipeline:
    """A loaded pipeline's tasks, and the models that all requests share.

    Args:
        pipelines: a pipeline for each task, built over the same models.
        prompt_cache: the memo that tokenizers and text encoders share.
        extra_schedulers: classes that requests may name beside the compatible ones.
        guidance_interval: parts of the steps between which guidance is on; None: always.
        feature_cache: how features are reused from step to step; None: not at all.
        exact: all denoiser calls have the same number of rows.
        max_adapters: adapters that one request may have.
        conditioning: ControlNets and image prompts beside the pipelines' own models.

    Attributes:
        adapters: the adapters that requests may name, none at first.
        controlnets: the ControlNets that requests may name, by their component in model calls.
        offload: which models are on the device, where they are not all.
    """

    def __init__(
        self,
        pipelines: Mapping[Task, Any],
        prompt_cache: PromptCache,
        extra_schedulers: Sequence[str] = (),
        guidance_interval: tuple[float, float] | None = None,
        feature_cache: FirstBlock | Deep | None = None,
        *,
        exact: bool = False,
        max_adapters: int = Limits().max_adapters,
        conditioning: Conditioning = NO_CONDITIONING,
    ) -> None:
        self.guidance_interval = guidance_interval
        self.pipelines = dict(pipelines)
        self.prompt_cache = prompt_cache
        first = next(iter(self.pipelines.values()))
        _refuse_changes_of_models(first)
        self.schedulers = Schedulers(first.scheduler, extra_schedulers)
        self.device: torch.device = first._execution_device
        self.rules: dict[str, JoiningRule | None] = {
            name: rule_for(model)
            for name, model in first.components.items()
            if name in DENOISERS and isinstance(model, torch.nn.Module)
        }
        self.feature_caches = _feature_caches(self, feature_cache, exact=exact)
        self.adapters = AdapterBank(first.components, self.device, max_adapters)
        self.image_prompts = conditioning.image_prompts
        self._templates: dict[tuple[Task, str | None], _Template] = {
            (task, None): _Template(pipeline, self) for task, pipeline in self.pipelines.items()
        }
        self.controlnets: dict[str, str] = {}
        for name, forms in conditioning.controlled.items():
            self._add_controlnet(name, forms)
        self.offload = Offload(first, frozenset(self.rules), self.device)

    def _add_controlnet(self, name: str, forms: Mapping[Task, Any]) -> None:
        component = f"{CONTROLNET}.{name}"
        self.controlnets[component] = name
        self.rules[component] = rule_for(next(iter(forms.values())).controlnet)
        for task, pipeline in forms.items():
            self._templates[task, name] = _Template(pipeline, self, component)

    @property
    def shares_calls(self) -> bool:
        """Whether requests can share this pipeline's denoiser calls."""
        return bool(self.rules) and all(rule is not None for rule in self.rules.values())

    @property
    def has_room_for_features(self) -> bool:
        """Whether requests in flight hold less than their feature caches may."""
        return all(cache.has_room for cache in self.feature_caches.values())

    def call_parameters(self, task: Task, controlnet: str | None = None) -> frozenset[str]:
        """Names of the parameters that the task's `__call__` takes."""
        return self._templates[task, controlnet].call_parameters

    def for_job(self, job: Job) -> RequestPipeline:
        """A copy of the job's pipeline with stand-ins and a scheduler of its own."""
        scheduler = self.schedulers.for_request(job.scheduler)
        draw_from(job.arguments.get("generator"), scheduler)
        pipeline = self._templates[job.task, job.controlnet].copy(scheduler, job)
        if job.feature_cache:
            pipeline.features = {
                name: cache.for_request() for name, cache in self.feature_caches.items()
            }
        return pipeline

    def forget_requests(self) -> None:
        """Lets go of what is kept from step to step, and of offloaded models' room on the device;
        the prompt cache stays."""
        for rule in self.rules.values():
            if rule is not None:
                rule.forget()
        self.adapters.forget()
        self.offload.clear()


class RequestPipeline:
    """One request's copy of a pipeline."""

    __slots__ = ("_rules", "call_parameters", "features", "pipeline")

    def __init__(
        self,
        pipeline: Any,
        call_parameters: frozenset[str],
        rules: Mapping[str, JoiningRule | None],
    ) -> None:
        self.pipeline = pipeline
        self.call_parameters = call_parameters
        self.features: dict[str, Features] = {}
        self._rules = rules

    def call(self, **arguments: Any) -> Any:
        """The pipeline's own `__call__`, unmodified."""
        return self.pipeline(**arguments)

    def zeros(self, call: ModelCall) -> Any:
        """An answer to a denoiser call that costs nothing: it will be overwritten."""
        if call.kind == "control":
            return no_residuals(call)
        rule = self._rules[call.component]
        assert rule is not None
        return rule.zeros(call)

    @property
    def num_timesteps(self) -> int | None:
        """How many timesteps the call runs, None before it has planned them."""
        count = getattr(self.pipeline, "_num_timesteps", None)
        scheduler = self.pipeline.scheduler
        if count is None and getattr(scheduler, "num_inference_steps", None) is not None:
            return len(scheduler.timesteps)
        return None if count is None else int(count)

    @property
    def truncated(self) -> bool:
        """Whether a tokenizer cut a prompt at its limit."""
        return any(
            part.truncated
            for part in vars(self.pipeline).values()
            if type(part) is TokenizerStandIn
        )


class _Template:
    """Makes copies of one task's pipeline. `controlnet` is the component of the one it calls."""

    def __init__(
        self, pipeline: Any, served: ServedPipeline, controlnet: str | None = None
    ) -> None:
        self._pipeline = pipeline
        self._served = served
        self._controlnet = controlnet
        self.call_parameters = frozenset(inspect.signature(type(pipeline).__call__).parameters)
        self._class = _request_class(type(pipeline), served.device)

    def copy(self, scheduler: Any, job: Job) -> RequestPipeline:
        pipeline = copy.copy(self._pipeline)
        pipeline.__class__ = self._class
        # Straight into __dict__: the pipeline's own __setattr__ would rewrite its shared config.
        state = vars(pipeline)
        state["scheduler"] = scheduler
        for name, component in self._pipeline.components.items():
            stand_in = self._stand_in(name, component, pipeline, job)
            if stand_in is not None:
                state[name] = stand_in
        return RequestPipeline(pipeline, self.call_parameters, self._served.rules)

    def _stand_in(self, name: str, component: Any, pipeline: Any, job: Job) -> Any:
        if component is None:
            return None
        if name.startswith("tokenizer"):
            return TokenizerStandIn(name, component, self._served.prompt_cache)
        if not isinstance(component, torch.nn.Module):
            return None
        if name in _VAES:
            return VaeStandIn(name, component)
        if name == CONTROLNET and self._controlnet is not None:
            return ControlNetStandIn(self._controlnet, component)
        if name == "image_encoder":
            return ImageEncoderStandIn(name, component)
        stand_in: StandIn | None = None
        if name.startswith("text_encoder"):
            stand_in = TextEncoderStandIn(name, component, self._served.prompt_cache)
        elif name in self._served.rules:
            stand_in = self._denoiser(name, component, pipeline)
            if self._served.image_prompts is not None and name == "unet":
                scale = job.ip_adapter_scale
                stand_in.conditions = self._served.image_prompts.conditions(scale)
        if stand_in is not None:
            stand_in.blend = self._served.adapters.blend(name, job.adapters)
        return stand_in

    def _denoiser(self, name: str, model: Any, pipeline: Any) -> StandIn:
        interval, rule = self._served.guidance_interval, self._served.rules[name]
        if interval is None or rule is None:
            return StandIn(name, model)
        return IntervalStandIn(name, model, rule, pipeline, interval)


def _feature_caches(
    served: ServedPipeline, settings: FirstBlock | Deep | None, *, exact: bool
) -> dict[str, FeatureCache]:
    """A feature cache for each denoiser; `ConfigError` where this pipeline can have none."""
    if settings is None:
        return {}
    for task, pipeline in served.pipelines.items():
        name = type(pipeline).__name__
        parameters = inspect.signature(type(pipeline).__call__).parameters
        if not {"callback_on_step_end", "callback"} & set(parameters):
            raise _no_feature_cache(f"{name} ({task}) does not tell its steps")
        if "controlnet" in pipeline.components:
            raise _no_feature_cache(f"the ControlNet of {name} reaches into the blocks it skips")
    components = next(iter(served.pipelines.values())).components
    return {name: FeatureCache(components[name], settings, exact=exact) for name in served.rules}


def _no_feature_cache(reason: str) -> ConfigError:
    return ConfigError(f"handler.feature_cache: {reason}", field="handler.feature_cache")


def _refuse_changes_of_models(pipeline: Any) -> None:
    """Perturbed-attention pipelines put layers of their own into the denoiser during a call."""
    if hasattr(pipeline, "_set_pag_attn_processor"):
        raise ConfigError(
            f"{type(pipeline).__name__} changes its denoiser for the length of a call, so requests "
            "cannot share it; serve the pipeline without PAG"
        )


def _request_class(pipeline_class: type, device: torch.device) -> type:
    """The pipeline's class with the two members replaced that look at all shared models.

    `_execution_device` walks every component (milliseconds a request), and
    `maybe_free_model_hooks` would move models that other requests are using: `Offload` does that.
    """
    return type(
        pipeline_class.__name__,
        (pipeline_class,),
        {
            "__module__": pipeline_class.__module__,
            "_execution_device": property(lambda _self: device),
            "maybe_free_model_hooks": lambda _self: None,
        },
    )
