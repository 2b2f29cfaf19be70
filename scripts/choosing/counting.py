"""Counts a loaded pipeline's floating-point operations and bytes, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import Shape
from diffusion_costs.fleets.roofline import Counted, Operation
from diffusion_costs.tuning.configurations import BATCH_SIZES
from diffusion_engine.call import Job
from diffusion_engine.engine import StepEngine
from diffusion_engine.profiling import capture
from diffusion_engine.service import DiffusionService
from tuning.parts import job_of, request_of, rows_of


def _attention_on_cpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    count = sdpa_flop_count(query.shape, key.shape, value.shape)  # type: ignore[no-untyped-call]
    return int(count)


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    # Which torch's own table leaves out.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_on_cpu,
}


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that computes something: torch's own FLOP formulas, and the bytes of
    the tensors that it reads and writes. Views move nothing and are left out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not _is_view(func):
            formula = _FORMULAS.get(func._overloadpacket)
            flops = formula(*args, **kwargs, out_val=result) if formula else 0
            moved = sum(
                leaf.nbytes
                for leaf in tree_leaves((args, kwargs, result))
                if isinstance(leaf, torch.Tensor)
            )
            self.operations.append(Operation(float(flops), float(moved)))
        return result


def count(service: DiffusionService, shape: Shape, conditions: dict[str, Any]) -> Counted:
    """What the models do for a picture of default settings, and in calls of larger batches.

    Calls of one and of two requests are run. An operation of a larger batch is extrapolated from
    these two: weights are read once, and everything else grows with the rows.
    """
    request = request_of(service, shape)
    job = job_of(service, request)
    job = replace(job, rows=rows_of(service, job))
    one = _denoiser(service, job, 1)
    two = _denoiser(service, job, 2)
    grows = len(one) == len(two)
    sizes = BATCH_SIZES if grows else (1,)
    denoiser = {job.rows * size: _batch(one, two if grows else one, size) for size in sizes}
    encode, decode = _ends(service, shape)
    defaults = service.schema.parse_json({"prompt": "counted"})
    return Counted(
        rows=job.rows,
        steps=defaults.num_inference_steps,
        shape=str(shape),
        dtype=service.settings.dtype,
        encode=encode,
        decode=decode,
        denoiser=denoiser,
        weights_gb=_weights(service) / 1e9,
        conditions=conditions,
    )


def _denoiser(service: DiffusionService, job: Job, requests: int) -> list[Operation]:
    """A denoiser call of so many equal requests; nothing where they cannot share one."""
    with torch.no_grad():
        call = capture(service.served, job)
        try:
            rule = service.served.rules.get(call.component)
            if rule is None or rule.key(call) is None:
                return _counted(call.run) if requests == 1 else []
            joined = rule.join([call] * requests)
            return _counted(partial(call.model, **rule.slice(joined, 0, job.rows * requests)))
        finally:
            service.served.forget_requests()


def _ends(service: DiffusionService, shape: Shape) -> tuple[list[Operation], list[Operation]]:
    """Encoding a prompt that no cache holds, and decoding a picture."""
    engine = StepEngine(service.served, SchedulingPolicy(1, override=True))
    found: dict[str, list[Operation]] = {"encode": [], "decode": []}
    # The first fills the cache with the empty prompt, as a server's first request does.
    for _ in range(2):
        found = {"encode": [], "decode": []}
        request = replace(
            request_of(service, shape), num_inference_steps=service.settings.limits.min_steps
        )
        engine.submit(job_of(service, request))
        counts = engine.forward.counts
        while True:
            before = replace(counts)
            with OperationCounter() as counter:
                more = engine.step()
            if not more:
                break
            if counts.encoder_calls > before.encoder_calls:
                found["encode"] += counter.operations
            elif counts.decoder_calls > before.decoder_calls:
                found["decode"] += counter.operations
    return found["encode"], found["decode"]


def _counted(call: Callable[[], Any]) -> list[Operation]:
    counter = OperationCounter()
    with counter:
        call()
    return counter.operations


def _batch(one: Sequence[Operation], two: Sequence[Operation], size: int) -> list[Operation]:
    return [
        Operation(
            first.flops + (second.flops - first.flops) * (size - 1),
            first.bytes + (second.bytes - first.bytes) * (size - 1),
        )
        for first, second in zip(one, two, strict=True)
    ]


def _weights(service: DiffusionService) -> int:
    pipeline = next(iter(service.served.pipelines.values()))
    models = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
    return sum(
        tensor.nbytes for model in models for tensor in (*model.parameters(), *model.buffers())
    )


def _is_view(func: Any) -> bool:
    returned = [one.alias_info for one in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)
