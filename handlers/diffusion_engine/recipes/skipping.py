"""Blocks that rows pass by, by their timestep: where a block adds little, it is not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from diffusion_core.errors import ConfigError

Span = tuple[float, float]


class Passing:
    """Stands before a block's forward: rows whose timestep lies in a span go on as they came.

    The choice is a row's own and exact, so a row gets the same in any company. Rows that need the
    block run it together.

    Args:
        forward: of a block whose first argument, [rows, …], is what it adds to.
        span: timesteps, the lower included, the upper not.
        clock: tells the timestep of each row of the denoiser's present call.
    """

    def __init__(self, forward: Callable[..., Any], span: Span, clock: Clock) -> None:
        self._forward = forward
        self._span = span
        self._clock = clock

    def __call__(
        self, hidden_states: torch.Tensor, *args: Any, return_dict: bool = True, **kwargs: Any
    ) -> Any:
        """The block's output, as its own forward would give it."""
        passing = self._clock.within(self._span, hidden_states.shape[0])
        kept = [row for row, skips in enumerate(passing) if not skips]
        rows = len(passing)
        if len(kept) == rows:
            return self._forward(hidden_states, *args, return_dict=return_dict, **kwargs)
        output = hidden_states
        if kept:
            chosen = [_of_rows(value, kept, rows) for value in args]
            named = {name: _of_rows(value, kept, rows) for name, value in kwargs.items()}
            some = self._forward(hidden_states[kept], *chosen, return_dict=False, **named)[0]
            output = hidden_states.clone()
            output[kept] = some
        if not return_dict:
            return (output,)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=output)


class Clock:
    """The timesteps of a denoiser's present call, read off its arguments before it runs."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def read(self, _model: torch.nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        """A forward pre-hook of the denoiser."""
        given = kwargs["timestep"] if "timestep" in kwargs else args[1]
        self._times = torch.as_tensor(given).reshape(-1).float().tolist()

    def times(self, rows: int) -> list[float]:
        """The timestep of each of so many rows; one timestep is every row's."""
        return self._times * rows if len(self._times) == 1 else self._times

    def within(self, span: Span, rows: int) -> list[bool]:
        """Which rows' timesteps lie in the span."""
        return [span[0] <= time < span[1] for time in self.times(rows)]


def skip_blocks(model: torch.nn.Module, spans: Mapping[str, Span]) -> None:
    """Lets rows pass by the named blocks while their timestep is in the block's span.

    Raises `ConfigError` for a name that is no attention block of the model.
    """
    known = attention_blocks(model)
    clock = Clock()
    for name, span in spans.items():
        if name not in known:
            raise ConfigError(
                f"handler.optimization.skipped_blocks: {name} is no attention block of this "
                f"{type(model).__name__}; it has {', '.join(known) or 'none'}"
            )
        block: Any = known[name]
        block.forward = Passing(block.forward, span, clock)
    model.register_forward_pre_hook(clock.read, with_kwargs=True)


def attention_blocks(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """A UNet's blocks that add attention to what they are given, by their names."""
    return {
        name: block
        for name, block in model.named_modules()
        if type(block).__name__ == "Transformer2DModel"
    }


def _of_rows(value: Any, rows: list[int], count: int) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == count:
        return value[rows]
    return value
