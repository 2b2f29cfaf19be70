"""What a value holds, as something that can be compared and hashed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

_PLAIN = (str, int, float, bool, type(None), torch.dtype)


class _Read(NamedTuple):
    writes: int
    content: Hashable


# Reading a tensor's bytes waits for a GPU, so it is done once for each tensor, not at each step.
_seen: MutableMapping[torch.Tensor, _Read] = WeakTensorKeyDictionary()


def content_of(value: Any) -> Hashable | None:
    """Equal for values of equal type and content; None for a value of unknown meaning."""
    if isinstance(value, torch.Tensor):
        return _content_of_tensor(value)
    if isinstance(value, (list, tuple)):
        return _all_of("sequence", [content_of(item) for item in value])
    if isinstance(value, Mapping):
        return _all_of("mapping", [content_of(item) for pair in value.items() for item in pair])
    # 1, 1.0 and True are equal as keys but not as arguments.
    return (type(value).__name__, value) if isinstance(value, _PLAIN) else None


def _all_of(kind: str, parts: list[Hashable | None]) -> Hashable | None:
    return None if any(part is None for part in parts) else (kind, tuple(parts))


def _content_of_tensor(value: torch.Tensor) -> Hashable:
    read = _seen.get(value)
    if read is None or read.writes != value._version:
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content = (str(value.dtype), tuple(value.shape), flat.numpy().tobytes())
        read = _Read(value._version, content)
        _seen[value] = read
    return read.content
