"""A layer of a served model that can add its rows' adapters to what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from diffusion_engine.adapters.stacks import Product, Stack
from diffusion_engine.adapters.weights import LowRank

_Delta = Callable[[torch.Tensor, Product, int | None], torch.Tensor]


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
            self._delta: _Delta = _linear
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
        linear = isinstance(self.module, torch.nn.Linear)
        wide = (module.in_features,) if linear else (module.in_channels, *module.kernel_size)
        out, end = (module.out_features, ()) if linear else (module.out_channels, (1, 1))
        return low.down.shape == (low.rank, *wide) and low.up.shape == (out, low.rank, *end)

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
        for product in stack.products:
            delta = self._delta(x.to(product.down.dtype), product, stack.rows)
            if product.scale is not None:
                delta = delta.mul_(_by_row(product.scale, delta))
            output = output.add_(delta.to(output.dtype))
        return output

    def _convolution(self, x: torch.Tensor, product: Product, rows: int | None) -> torch.Tensor:
        module: Any = self.module
        how = (module.stride, module.padding, module.dilation)
        if rows is None:
            return functional.conv2d(functional.conv2d(x, product.down, None, *how), product.up)
        # A group of channels for each row, each with weights of its own.
        joined = x.reshape(1, -1, *x.shape[2:])
        narrow = functional.conv2d(joined, product.down.flatten(0, 1), None, *how, rows)
        size = narrow.shape[2:]
        narrow = narrow.reshape(rows, product.up.shape[2], -1)
        return torch.bmm(product.up, narrow).reshape(rows, -1, *size)


def _linear(x: torch.Tensor, product: Product, rows: int | None) -> torch.Tensor:
    if rows is None:
        return functional.linear(functional.linear(x, product.down), product.up)
    flat = x.reshape(rows, -1, x.shape[-1])
    delta = torch.bmm(torch.bmm(flat, product.down.mT), product.up.mT)
    return delta.reshape(*x.shape[:-1], delta.shape[-1])


def _by_row(scale: torch.Tensor | float, delta: torch.Tensor) -> torch.Tensor | float:
    return scale if isinstance(scale, float) else scale.view(-1, *[1] * (delta.ndim - 1))
