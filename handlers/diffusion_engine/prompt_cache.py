"""A memo of tokenizer and text-encoder calls, bounded in bytes, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch

# What an entry costs beside its tensors: the key, the output object, the links. An upper bound by
# sys.getsizeof over the keys of 77-token prompts; it keeps thousands of empty entries bounded.
_ENTRY_BYTES = 4096

_SMALL = (str, int, float, bool, type(None), torch.dtype, torch.device)


class PromptCache:
    """Outputs by arguments. Entries live on the model's device; keys never leave this process.

    Only the engine's thread uses it. An output that a pipeline changed in place is not given out
    again: torch counts the writes to a tensor, and a hit compares that count.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def key(component: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """A key of all that decides the output: tensors by content, the rest by value."""
        named = tuple((name, _freeze(kwargs[name])) for name in sorted(kwargs))
        return (component, tuple(_freeze(value) for value in args), named)

    def get(self, key: Hashable) -> Any:
        """The output kept under `key`, or None."""
        entry = self._entries.get(key)
        if entry is not None and entry[2] == _writes(entry[0]):
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[0]
        if entry is not None:
            self._drop(key)
        self.misses += 1
        return None

    def put(self, key: Hashable, output: Any) -> None:
        """Keeps `output`, and drops the least recently used entries beyond the bound.

        An output is not kept where the memory that it holds cannot be told: it might be anything.
        """
        if not _is_counted(output):
            return
        size = sum(t.nbytes for t in _tensors(output)) + _ENTRY_BYTES
        if size > self.max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (output, size, _writes(output))
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: Hashable) -> None:
        self.bytes -= self._entries.pop(key)[1]


def _freeze(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().reshape(-1).view(torch.uint8)
        return (str(value.dtype), tuple(value.shape), content.numpy().tobytes())
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, Mapping):
        return tuple((name, _freeze(value[name])) for name in sorted(value))
    if isinstance(value, _SMALL):
        # 1, 1.0 and True are equal as keys but not as arguments.
        return (type(value).__name__, value)
    # An argument of unknown meaning: a key that never matches again keeps the memo exact.
    return object()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)


def _is_counted(output: Any) -> bool:
    """Whether `_tensors` finds all that an output holds. Keys and values of a transformer's own
    cache, for one, are in an object of its own."""
    if isinstance(output, Mapping):
        return all(map(_is_counted, output.values()))
    if isinstance(output, (list, tuple)):
        return all(map(_is_counted, output))
    return isinstance(output, (torch.Tensor, *_SMALL))


def _writes(output: Any) -> int:
    return sum(t._version for t in _tensors(output))
