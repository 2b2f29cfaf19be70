"""A layer of a served model that can add its rows' adapters to what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from diffusion_engine.adapters.stacks import Stack
from diffusion_engine.adapters.weights import LowRank


class UnlikeRowsError(RuntimeError):
    """A layer was called with something else than the call's rows in its first dimension."""


class AdaptedLayer:
    """A linear layer or a two-dimensional convolution of a shared model.

    Outside `adding` the module is exactly what it was: `forward` shadows its own for the length of
    a call, so that calls without adapters do not even ask.

    Raises `ValueError`, when made, for a layer of another kind.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        if isinstance(module, torch.nn.Linear):
            self._delta: Callable[[torch.Tensor, Stack], torch.Tensor] = _linear
        elif isinstance(module, torch.nn.Conv2d) and module.groups == 1:
            self._delta = self._convolution
        else:
            raise ValueError(f"a {type(module).__name__} takes no low-rank weights")
        self.module = module
        self._own: Any = None
        self._inner: Any = None
        self._stack: Stack | None = None

    @property
    def dtype(self) -> torch.dtype | None:
        """What the module computes in; None where its weights are packed in some other form."""
        weight: Any = self.module.weight
        return weight.dtype if weight.is_floating_point() else None

    def fits(self, low: LowRank) -> bool:
        """Whether the factors have this layer's shape."""
        module: Any = self.module
        if isinstance(module, torch.nn.Linear):
            down, up = (low.rank, module.in_features), (module.out_features, low.rank)
        else:
            down = (low.rank, module.in_channels, *module.kernel_size)
            up = (module.out_channels, low.rank, 1, 1)
        return tuple(low.down.shape) == down and tuple(low.up.shape) == up

    def begin(self, stack: Stack) -> None:
        """From here to `end` the module adds `stack` to what it answers."""
        state = vars(self.module)
        # A module may have a forward of its own already: accelerate's, that moves its weights.
        self._own = state.get("forward")
        self._inner = self.module.forward
        self._stack = stack
        state["forward"] = self._forward

    def end(self) -> None:
        """The module is what it was."""
        state = vars(self.module)
        if self._own is None:
            del state["forward"]
        else:
            state["forward"] = self._own
        self._own = self._inner = self._stack = None

    def _forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        stack = self._stack
        assert stack is not None
        output: torch.Tensor = self._inner(x, *args, **kwargs)
        if stack.rows is not None and stack.rows != x.shape[0]:
            raise UnlikeRowsError(f"{x.shape[0]} rows in a layer of a call of {stack.rows}")
        delta = self._delta(x.to(stack.down.dtype), stack)
        return output.add_(delta.to(output.dtype))

    def _convolution(self, x: torch.Tensor, stack: Stack) -> torch.Tensor:
        module: Any = self.module
        how = (module.stride, module.padding, module.dilation)
        if stack.rows is None:
            narrow = functional.conv2d(x, stack.down, None, *how)
            return functional.conv2d(narrow, stack.up)
        # A group of channels for each row, each with weights of its own.
        joined = x.reshape(1, -1, *x.shape[2:])
        narrow = functional.conv2d(joined, stack.down.flatten(0, 1), None, *how, stack.rows)
        size = narrow.shape[2:]
        narrow = narrow.reshape(stack.rows, stack.up.shape[2], -1)
        return torch.bmm(stack.up, narrow).unflatten(2, size)


def _linear(x: torch.Tensor, stack: Stack) -> torch.Tensor:
    if stack.rows is None:
        return functional.linear(functional.linear(x, stack.down), stack.up)
    rows = x.reshape(stack.rows, -1, x.shape[-1])
    delta = torch.bmm(torch.bmm(rows, stack.down.mT), stack.up.mT)
    return delta.reshape(*x.shape[:-1], delta.shape[-1])
