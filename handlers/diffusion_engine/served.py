"""The served pipeline: shared models, and a cheap copy of the pipeline for each request."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion_core.capabilities import Task
from diffusion_core.errors import ConfigError
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.recipes.guidance import IntervalStandIn
from diffusion_engine.rules import JoiningRule, rule_for
from diffusion_engine.schedulers import Schedulers
from diffusion_engine.stand_ins import (
    ModelCall,
    StandIn,
    TextEncoderStandIn,
    TokenizerStandIn,
    VaeStandIn,
)

_DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")
_VAES = ("vae", "movq", "vqvae", "vqgan")


class ServedPipeline:
    """A loaded pipeline's tasks, and the models that all requests share.

    Args:
        pipelines: a pipeline for each task, built over the same models.
        prompt_cache: the memo that tokenizers and text encoders share.
        extra_schedulers: classes that requests may name beside the compatible ones.
        guidance_interval: parts of the steps between which guidance is on; None: always.
    """

    def __init__(
        self,
        pipelines: Mapping[Task, Any],
        prompt_cache: PromptCache,
        extra_schedulers: Sequence[str] = (),
        guidance_interval: tuple[float, float] | None = None,
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
            if name in _DENOISERS and isinstance(model, torch.nn.Module)
        }
        self._templates = {
            task: _Template(pipeline, self) for task, pipeline in self.pipelines.items()
        }

    @property
    def shares_calls(self) -> bool:
        """Whether requests can share this pipeline's denoiser calls."""
        return bool(self.rules) and all(rule is not None for rule in self.rules.values())

    def call_parameters(self, task: Task) -> frozenset[str]:
        """Names of the parameters that the task's `__call__` takes."""
        return self._templates[task].call_parameters

    def for_request(self, task: Task, scheduler: str | None) -> RequestPipeline:
        """A copy of the task's pipeline with stand-ins and a scheduler of its own."""
        return self._templates[task].copy(self.schedulers.for_request(scheduler))

    def forget_requests(self) -> None:
        """Lets go of what is kept from step to step; the prompt cache stays."""
        for rule in self.rules.values():
            if rule is not None:
                rule.forget()


class RequestPipeline:
    """One request's copy of a pipeline."""

    __slots__ = ("_rules", "call_parameters", "pipeline")

    def __init__(
        self,
        pipeline: Any,
        call_parameters: frozenset[str],
        rules: Mapping[str, JoiningRule | None],
    ) -> None:
        self.pipeline = pipeline
        self.call_parameters = call_parameters
        self._rules = rules

    def call(self, **arguments: Any) -> Any:
        """The pipeline's own `__call__`, unmodified."""
        return self.pipeline(**arguments)

    def zeros(self, call: ModelCall) -> Any:
        """An answer to a denoiser call that costs nothing: it will be overwritten."""
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
    """Makes copies of one task's pipeline."""

    def __init__(self, pipeline: Any, served: ServedPipeline) -> None:
        self._pipeline = pipeline
        self._served = served
        self.call_parameters = frozenset(inspect.signature(type(pipeline).__call__).parameters)
        self._class = _request_class(type(pipeline), served.device)

    def copy(self, scheduler: Any) -> RequestPipeline:
        pipeline = copy.copy(self._pipeline)
        pipeline.__class__ = self._class
        # Straight into __dict__: the pipeline's own __setattr__ would rewrite its shared config.
        state = vars(pipeline)
        state["scheduler"] = scheduler
        for name, component in self._pipeline.components.items():
            stand_in = self._stand_in(name, component, pipeline)
            if stand_in is not None:
                state[name] = stand_in
        return RequestPipeline(pipeline, self.call_parameters, self._served.rules)

    def _stand_in(self, name: str, component: Any, pipeline: Any) -> Any:
        if component is None:
            return None
        if name.startswith("tokenizer"):
            return TokenizerStandIn(name, component, self._served.prompt_cache)
        if not isinstance(component, torch.nn.Module):
            return None
        if name in _VAES:
            return VaeStandIn(name, component)
        if name.startswith("text_encoder"):
            return TextEncoderStandIn(name, component, self._served.prompt_cache)
        return self._denoiser(name, component, pipeline) if name in self._served.rules else None

    def _denoiser(self, name: str, model: Any, pipeline: Any) -> StandIn:
        interval, rule = self._served.guidance_interval, self._served.rules[name]
        if interval is None or rule is None:
            return StandIn(name, model)
        return IntervalStandIn(name, model, rule, pipeline, interval)


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
    `maybe_free_model_hooks` would move models that other requests are using.
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
