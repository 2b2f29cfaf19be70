"""The hooks that send a call's rows through a block or around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook

from diffusion_engine.feature_cache.anatomy import Anatomy
from diffusion_engine.feature_cache.passage import Passage

_NAME = "feature_cache"

Now = Callable[[], Passage | None]
"""The passage of the call that runs; None while calls run as if there were no cache."""


def install(anatomy: Anatomy, now: Now) -> None:
    """Hooks the blocks, in place of an earlier cache; outside of a passage they answer as ever."""
    if anatomy.head is not None:
        _hook(anatomy.head, _Head(anatomy, now))
    for block in anatomy.deep:
        _hook(block, _Deep(anatomy, now, block))


def _hook(block: torch.nn.Module, hook: ModelHook) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(block)
    registry.remove_hook(_NAME, recurse=False)
    registry.register_hook(hook, _NAME)


class _Head(ModelHook):  # type: ignore[misc]
    """The first block: all rows pass, and what it adds to them decides."""

    def __init__(self, anatomy: Anatomy, now: Now) -> None:
        super().__init__()
        self._anatomy = anatomy
        self._now = now

    def new_forward(self, _module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's own answer."""
        output = self.fn_ref.original_forward(*args, **kwargs)
        passage = self._now()
        if passage is not None:
            before = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            passage.decide_by(before, self._anatomy.hidden(output))
        return output


class _Deep(ModelHook):  # type: ignore[misc]
    """A block that rows may skip; after the last of them all rows are together again."""

    def __init__(self, anatomy: Anatomy, now: Now, block: torch.nn.Module) -> None:
        super().__init__()
        self._anatomy = anatomy
        self._now = now
        self._decides = anatomy.head is None and block is anatomy.deep[0]
        self._last = block is anatomy.deep[-1]
        self._parameters = tuple(inspect.signature(block.forward).parameters)

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The block's answer for the rows that go through."""
        passage = self._now()
        if passage is None:
            return self.fn_ref.original_forward(*args, **kwargs)
        if self._decides:
            passage.decide()
        named = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        if passage.nobody:
            output = self._anatomy.passed(module, named)
        else:
            output = self.fn_ref.original_forward(**passage.take(named, self._anatomy.by_row))
        if not self._last:
            return output
        whole = passage.join(self._anatomy.hidden(output))
        return self._anatomy.with_hidden(output, whole)
