"""What adapters cost a denoiser call: none, one for all rows, another one for each request.

Beside it stands what diffusers' own way costs, PEFT's layers with one adapter for all rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.bench import Bench
from benchmarks.engine import request_of
from benchmarks.figures import ratios, summary
from benchmarks.models import Model, find
from benchmarks.workload import asked
from diffusion_core.model_config import HandlerSettings
from diffusion_engine.adapters import Adapter, Blend, LowRank
from diffusion_engine.arguments import job
from diffusion_engine.loading import load_pipeline, with_tasks
from diffusion_engine.profiling import capture
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline

_REQUESTS = 4
_RANK = 16
_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention layers that diffusers' own training scripts put a LoRA on."""

_TEXT_TO_IMAGE = "text-to-image"

NONE, UNUSED, ONE, EACH, SEVERAL, PEFT = "none", "unused", "one", "each", "several", "peft"

Calls = dict[str, Callable[[], Any]]


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds of a call in every way, and the ratios to a call with none, by model."""
    found = {}
    for name in bench.chosen("emoji", "mid"):
        bench.say(f"{name}: calls with adapters")
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            rounds = bench.scaled(30 if name == "emoji" else 9, 2)
            seconds = process.submit(_seconds, name, bench.threads, rounds).result()
        found[name] = {
            "model": name,
            "requests": _REQUESTS,
            "rows": 2 * _REQUESTS,
            "rank": _RANK,
            "seconds": {way: summary(times) for way, times in seconds.items()},
            "of_none": {
                way: summary(ratios(times, seconds[NONE]))
                for way, times in seconds.items()
                if way != NONE
            },
            "each_of_peft": summary(ratios(seconds[EACH], seconds[PEFT])),
        }
    return found


def _seconds(name: str, threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a call in each way, a value for each round; all ways take turns."""
    model = find(name)
    torch.set_grad_enabled(False)
    calls = {**_own_calls(model, threads), **_peft_call(model, threads)}
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    for number in range(rounds + 1):
        for way in calls if number % 2 else reversed(calls):
            begun = time.perf_counter()
            calls[way]()
            if number:
                seconds[way].append(time.perf_counter() - begun)
    return seconds


def _own_calls(model: Model, threads: int) -> Calls:
    served, bare = _served(model, threads), _served(model, threads)
    unet = next(iter(served.pipelines.values())).unet
    names = [f"number-{seed}" for seed in range(2 * _REQUESTS)]
    for seed, adapter in enumerate(names):
        served.adapters.add(adapter, Adapter({"unet": _low_rank(unet, seed)}))
    forward = _forward(served, model)
    blends: dict[str, list[Blend]] = {
        UNUSED: [()] * _REQUESTS,
        ONE: [((names[0], 1.0),)] * _REQUESTS,
        EACH: [((adapter, 1.0),) for adapter in names[:_REQUESTS]],
        SEVERAL: [
            ((names[2 * number], 0.7), (names[2 * number + 1], 0.4)) for number in range(_REQUESTS)
        ],
    }

    def call(rows: list[Blend]) -> None:
        with served.adapters.adding("unet", rows):
            forward()

    own = {way: partial(call, [b for b in of for _ in range(2)]) for way, of in blends.items()}
    return {NONE: _forward(bare, model), **own}


def _peft_call(model: Model, threads: int) -> Calls:
    from peft import LoraConfig

    served = _served(model, threads)
    unet = next(iter(served.pipelines.values())).unet
    config = LoraConfig(
        r=_RANK, lora_alpha=_RANK, init_lora_weights=False, target_modules=list(_LAYERS)
    )
    unet.add_adapter(config, "one")
    unet.set_adapters(["one"], weights=[1.0])
    return {PEFT: _forward(served, model)}


def _served(model: Model, threads: int) -> ServedPipeline:
    settings = HandlerSettings(device="cpu", dtype=model.dtype, threads=threads)
    # As the service does it: the OpenMP threads of loading end with the thread that loaded.
    with ThreadPoolExecutor(1) as loading:
        load = loading.submit(load_pipeline, model.folder, settings, torch.device("cpu"))
        pipeline = load.result()
    return ServedPipeline(with_tasks(pipeline), PromptCache(1 << 24))


def _forward(served: ServedPipeline, model: Model) -> Callable[[], Any]:
    """The denoiser's call that the requests share in their first step."""
    parameters = served.call_parameters(_TEXT_TO_IMAGE)
    one = asked(model, [2])[0]
    call = capture(served, job(request_of(one), parameters, torch.device("cpu"), 60.0))
    rule = served.rules[call.component]
    assert rule is not None
    return partial(call.model, **rule.join([call] * _REQUESTS))


def _low_rank(unet: Any, seed: int) -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: LowRank(
            0.02 * torch.randn(_RANK, module.in_features, generator=generator),
            0.02 * torch.randn(module.out_features, _RANK, generator=generator),
            1.0,
        )
        for name, module in unet.named_modules()
        if name.endswith(_LAYERS) and isinstance(module, torch.nn.Linear)
    }
