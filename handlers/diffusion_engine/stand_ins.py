"""What a request's pipeline holds in place of the shared models.

A stand-in looks like its model (attributes, `isinstance`) but a forward through it pauses the
request's greenlet: the `ModelCall` goes to the engine, which answers with the model's output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from greenlet import getcurrent

from diffusion_engine.adapters import NO_BLEND, Blend
from diffusion_engine.feature_cache.features import Features
from diffusion_engine.prompt_cache import PromptCache

Kind = Literal["denoise", "control", "encode_prompt", "encode_image", "decode"]

JOINED: tuple[Kind, ...] = ("denoise", "control")
"""Kinds whose calls requests share, by the rules of their models."""


@dataclass(slots=True)
class ModelCall:
    """A forward that a request waits for.

    Attributes:
        dtype: what the VAE must run in, None elsewhere.
        blend: the adapters that this model adds for the request.
    """

    kind: Kind
    component: str
    model: Any
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    blend: Blend = NO_BLEND
    features: Features | None = None

    def run(self) -> Any:
        """The real model's answer to these arguments, in the dtype that the request asks for."""
        forward = self.model if self.method == "__call__" else getattr(self.model, self.method)
        if self.kind in JOINED:
            return forward(*self.args, **self.kwargs)
        kept = self.model.dtype
        try:
            if self.dtype is not None:
                self.model.to(dtype=self.dtype)
            return forward(*self.args, **self.kwargs)
        finally:
            # Some VAEs change their own dtype as they run; the next request finds it as it was.
            if self.model.dtype != kept:
                self.model.to(dtype=kept)


def pause(call: ModelCall) -> Any:
    """Hands `call` to the engine and sleeps until it is answered."""
    engine = getcurrent().parent
    assert engine is not None
    return engine.switch(call)


class StandIn:
    """Forwards every attribute to the model it stands for; calls pause.

    Attributes:
        blend: the adapters that the model adds for this request.
        conditions: gives a call's keyword arguments what the request's script does not know of.
    """

    kind: Kind = "denoise"

    def __init__(self, component: str, model: Any) -> None:
        self._component = component
        self._model = model
        self.blend: Blend = NO_BLEND
        self.conditions: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def to(self, *_args: Any, **_kwargs: Any) -> StandIn:
        """Nothing moves: the model is shared with other requests."""
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return pause(self._call(args, kwargs))

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelCall:
        """A forward of the model as this request has it."""
        if self.conditions is not None:
            kwargs = self.conditions(kwargs)
        call = ModelCall(self.kind, self._component, self._model, "__call__", args, kwargs)
        call.blend = self.blend
        return call


class ImageEncoderStandIn(StandIn):
    """What sees a reference picture (an IP-Adapter's CLIP vision model)."""

    kind: Kind = "encode_image"


class TextEncoderStandIn(StandIn):
    """A text encoder with a memo: a prompt seen before costs no call and no pause."""

    kind: Kind = "encode_prompt"

    def __init__(self, component: str, model: Any, cache: PromptCache) -> None:
        super().__init__(component, model)
        self._cache = cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = (self.blend, self._cache.key(self._component, args, kwargs))
        output = self._cache.get(key)
        if output is None:
            output = super().__call__(*args, **self._without_keys(args, kwargs))
            self._cache.put(key, output)
        return output

    def _without_keys(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments, and no keys and values of a language model's layers asked for.

        They would be for writing on; no pipeline reads them, and a memo of them takes more memory
        than the embeddings do.
        """
        open_ = list(inspect.signature(self._model.forward).parameters)[len(args) :]
        return {"use_cache": False, **kwargs} if "use_cache" in open_ else kwargs


class VaeStandIn(StandIn):
    """A VAE whose dtype a pipeline may change for itself alone.

    SDXL upcasts its VAE to float32 around an encode or decode. The change is kept here and the
    engine applies it for the length of this request's own item.
    """

    def __init__(self, component: str, model: Any) -> None:
        super().__init__(component, model)
        self._dtype: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype this request's pipeline believes the VAE to have."""
        return self._dtype or self._model.dtype

    @property
    def post_quant_conv(self) -> Any:
        """The layer whose dtype pipelines read after an upcast."""
        layer = self._model.post_quant_conv
        return layer if self._dtype is None else _Upcast(layer, self._dtype)

    def to(self, *args: Any, **kwargs: Any) -> VaeStandIn:
        """Keeps a new dtype for this request; a device is not changed."""
        asked = kwargs.get("dtype", next((a for a in args if isinstance(a, torch.dtype)), None))
        if asked is not None:
            self._dtype = None if asked == self._model.dtype else asked
        return self

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """Pauses for the latent distribution of images [n, 3, H, W]."""
        return self._pause("encode_image", "encode", args, kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Pauses for the images of latents [n, C, h, w]."""
        return self._pause("decode", "decode", args, kwargs)

    def _pause(self, kind: Kind, method: str, args: Any, kwargs: Any) -> Any:
        call = ModelCall(kind, self._component, self._model, method, args, kwargs, self._dtype)
        return pause(call)


class TokenizerStandIn:
    """A tokenizer with a memo, that notes where it cut a prompt at its limit."""

    def __init__(self, component: str, tokenizer: Any, cache: PromptCache) -> None:
        self._component = component
        self._tokenizer = tokenizer
        self._cache = cache
        self.truncated = False

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Pipelines set the padding side just before they call: the tokenizer itself must know.
        own = name.startswith("_") or name == "truncated"
        object.__setattr__(self if own else self._tokenizer, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self._cache.key(self._component, args, kwargs)
        found = self._cache.get(key)
        if found is None:
            found = (self._tokenizer(*args, **kwargs), self._cuts(args, kwargs))
            self._cache.put(key, found)
        tokens, cut = found
        self.truncated = self.truncated or cut
        return tokens

    def _cuts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        text = args[0] if args else kwargs.get("text")
        if not kwargs.get("truncation") or text is None:
            return False
        limit = kwargs.get("max_length") or self._tokenizer.model_max_length
        texts = [text] if isinstance(text, str) else list(text)
        return any(len(ids) > limit for ids in self._tokenizer(texts)["input_ids"])


class _Upcast:
    """A layer seen through an upcast: its parameters have the dtype that the request asked for."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        self._layer = layer
        self._dtype = dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def parameters(self) -> Iterator[torch.Tensor]:
        """Empty tensors that carry the dtype; nobody reads weights here."""
        yield torch.empty(0, dtype=self._dtype)
