"""Denoisers run by OpenVINO: for machines with an Intel or ARM CPU and no GPU."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from diffusion_core.errors import ConfigError

logger = logging.getLogger(__name__)

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

_ADDED = ("text_embeds", "time_ids")
"""What Stable Diffusion XL's UNet is told beside the prompt."""


def run_on_openvino(model: Any, dtype: str, device: torch.device) -> None:
    """Replaces the model's forward by OpenVINO's, in place; its torch weights are let go of.

    The model keeps its class, config, dtype and device, so the engine sees no difference. Rows,
    heights, widths and lengths of prompts stay open.

    Raises `ConfigError` where OpenVINO is missing or the denoiser is not a UNet of Stable
    Diffusion's kind.
    """
    if type(model).__name__ != "UNet2DConditionModel" or device.type != "cpu":
        raise ConfigError(
            "handler.optimization.runtime: openvino runs UNet2DConditionModel on a CPU, not "
            f"{type(model).__name__} on {device.type}"
        )
    ov = _openvino()
    own = model.dtype
    added = _ADDED if _config(model).addition_embed_type == "text_time" else ()
    # Traced in float32; OpenVINO takes the precision of its products from the setting below.
    traced = _Traced(model.float().eval(), added)
    with warnings.catch_warnings(), torch.no_grad():
        # Of Python's branches that were traced as they went: all are on widths, which stay.
        warnings.simplefilter("ignore")
        converted = ov.convert_model(
            traced, example_input=_example(model, added), input=_open_shapes(model, added, ov)
        )
    threads = torch.get_num_threads()
    # Left to itself OpenVINO would round products to bfloat16 where the CPU can do that.
    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    model.forward = _Forward(compiled, added, own)
    _let_go(model, own)
    logger.info("OpenVINO %s runs the %s", ov.__version__, type(model).__name__)


class _Traced(torch.nn.Module):
    """The model with plain tensors in and one out, as a converter reads it."""

    def __init__(self, model: torch.nn.Module, added: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.added = added

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, states: torch.Tensor, *added: Any
    ) -> Any:
        kwargs = dict(zip(self.added, added, strict=True)) if added else None
        return self.model(sample, timestep, states, added_cond_kwargs=kwargs, return_dict=False)[0]


class _Forward:
    """A UNet's forward, answered by OpenVINO."""

    def __init__(self, compiled: Any, added: tuple[str, ...], dtype: torch.dtype) -> None:
        self._compiled = compiled
        self._added = added
        self._dtype = dtype
        self._request: Any = None

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        *,
        added_cond_kwargs: dict[str, torch.Tensor] | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """The predicted noise, [rows, channels, height, width], in the model's dtype."""
        for name, value in others.items():
            if value is not None:
                raise ValueError(f"{name}: the UNet that OpenVINO runs was converted without it")
        times = torch.as_tensor(timestep).float().expand(sample.shape[0])
        inputs = [sample, times, encoder_hidden_states]
        inputs += [(added_cond_kwargs or {})[name] for name in self._added]
        # One request of OpenVINO's: the loading thread's warm-up and the engine call in turns.
        self._request = self._request or self._compiled.create_infer_request()
        arrays = [one.detach().float().contiguous().numpy() for one in inputs]
        answered = self._request.infer(arrays)[0]
        output = torch.from_numpy(answered).to(self._dtype, copy=True)
        if not return_dict:
            return (output,)
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        return UNet2DConditionOutput(sample=output)


def _example(model: torch.nn.Module, added: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs of two rows, by which the model is traced."""
    config = _config(model)
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[-1]
    side = config.sample_size if isinstance(config.sample_size, int) else 64
    inputs = [
        torch.zeros(2, config.in_channels, side, side),
        torch.ones(2),
        torch.zeros(2, 77, width),
    ]
    if added:
        times = 6 * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - times
        inputs += [torch.zeros(2, pooled), torch.zeros(2, 6)]
    return tuple(inputs)


def _open_shapes(model: torch.nn.Module, added: tuple[str, ...], ov: Any) -> list[Any]:
    example = _example(model, added)
    shapes = [[-1, example[0].shape[1], -1, -1], [-1], [-1, -1, example[2].shape[2]]]
    shapes += [[-1, one.shape[1]] for one in example[3:]]
    return [ov.PartialShape(shape) for shape in shapes]


def _let_go(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Empties the parameters; they still tell a dtype and a device."""
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0, dtype=dtype)


def _config(model: Any) -> Any:
    return model.config


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise ConfigError(
            "handler.optimization.runtime: openvino is not installed: run "
            "`python3 scripts/install.py edge` where its worker is"
        ) from None
    return openvino
