"""Weight files, judged by their headers alone: no tensor is loaded.

The safetensors format (https://huggingface.co/docs/safetensors): eight bytes of little-endian
header length, that many bytes of JSON, then the tensors end to end in the order of their offsets.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from diffusion_core.errors import ConfigError

PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl"})

PICKLE_RISK = (
    "pickled weights can run any code when they are loaded; "
    "convert them to safetensors, or allow them if you trust who made them"
)

# The format's own bound on a header; a larger length is a sign of another kind of file.
_MAX_HEADER = 100_000_000

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """What some weight files hold: elements by dtype, the tensors' names and the files' bytes."""

    bytes: int = 0
    tensors: frozenset[str] = frozenset()
    elements: Counter[str] = field(default_factory=Counter)

    @property
    def parameters(self) -> int:
        """Elements of all tensors; zero where the files' headers do not tell (pickles)."""
        return sum(self.elements.values())

    @property
    def dtypes(self) -> str:
        """The dtypes in use, most elements first."""
        return ", ".join(dtype for dtype, _ in self.elements.most_common()) or "unknown"

    def __add__(self, other: Weights) -> Weights:
        return Weights(
            self.bytes + other.bytes,
            self.tensors | other.tensors,
            self.elements + other.elements,
        )


def read_safetensors(path: Path) -> Weights:
    """What the safetensors file at `path` holds; `ConfigError` where it is not whole."""
    header, data_bytes = _header(path)
    elements: Counter[str] = Counter()
    spans = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        dtype, count, begin, end = _tensor(path, name, tensor)
        elements[dtype] += count
        spans.append((begin, end))
    _require_gapless(path, sorted(spans), data_bytes)
    names = frozenset(header) - {"__metadata__"}
    return Weights(path.stat().st_size, names, elements)


def shapes(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file."""
    header, _ = _header(path)
    return {name: one["shape"] for name, one in header.items() if name != "__metadata__"}


def read_weights(path: Path, allow_pickle: bool) -> Weights:
    """What a weight file holds; a pickle is refused unless allowed, and never opened."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if not allow_pickle:
        raise ConfigError(f"{path}: {PICKLE_RISK}")
    return Weights(path.stat().st_size)


def shards(index: Path) -> list[Path]:
    """The files that a weight index names, each once; every one is there and inside its folder."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConfigError(f"{index}: has no weight_map")
    files = []
    for name in sorted({str(shard) for shard in weight_map.values()}):
        shard = index.parent / name
        if Path(name).name != name or name.startswith("."):
            raise ConfigError(f"{index}: names a shard outside its folder: {name}")
        if not shard.is_file():
            raise ConfigError(f"{shard}: is missing, though {index.name} names it")
        files.append(shard)
    return files


def require_indexed(index: Path, found: Weights) -> None:
    """Every tensor the index names must be in its shards."""
    missing = sorted(set(read_json(index)["weight_map"]) - found.tensors)
    if missing:
        raise ConfigError(f"{index}: names tensor {missing[0]}, which no shard holds")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `ConfigError` names the file and what is wrong with it."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must hold a JSON object")
    return document


def _header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise ConfigError(f"{path}: is truncated or not safetensors: its header is not whole")
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError:
        raise ConfigError(f"{path}: is not safetensors: its header is not JSON") from None
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: is not safetensors: its header is not an object")
    return header, size - 8 - length


def _tensor(path: Path, name: str, tensor: Any) -> tuple[str, int, int, int]:
    """A tensor's dtype, elements, and the bytes it lies between."""
    try:
        dtype, shape = str(tensor["dtype"]), [int(n) for n in tensor["shape"]]
        begin, end = (int(n) for n in tensor["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: tensor {name} has no dtype, shape and offsets") from None
    if dtype not in _BITS:
        raise ConfigError(f"{path}: tensor {name} is of unknown dtype {dtype}")
    if (end - begin) * 8 != prod(shape) * _BITS[dtype]:
        raise ConfigError(f"{path}: tensor {name} has not the bytes its shape needs")
    return dtype, prod(shape), begin, end


def _require_gapless(path: Path, spans: list[tuple[int, int]], data_bytes: int) -> None:
    position = 0
    for begin, end in spans:
        if begin != position:
            raise ConfigError(f"{path}: its tensors overlap or leave a gap at byte {position}")
        position = end
    if position != data_bytes:
        word = "truncated" if data_bytes < position else "longer than its header says"
        raise ConfigError(f"{path}: is {word}: {data_bytes} bytes of tensors, not {position}")
