"""An adapter's weights, and the file that an archive holds them in.

Format, version 1: a safetensors file with `<component>/<layer>/down` and `<component>/<layer>/up`
for each layer of each component, and one JSON document under `adapter` in its metadata: the version
and each layer's scaling. However it was trained and saved, it is in these terms here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diffusion_core.errors import ConfigError

VERSION = 1

_METADATA = "adapter"


@dataclass(frozen=True, slots=True)
class LowRank:
    """What one layer gets at weight 1: scaling · up · down (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        down: [rank, in] of a linear layer, [rank, in, height, width] of a convolution, which has
            the base layer's stride and padding.
        up: [out, rank], [out, rank, 1, 1].
        scaling: alpha / rank, or alpha / √rank where it was trained so (rsLoRA).
    """

    down: torch.Tensor
    up: torch.Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """Of the product."""
        return int(self.down.shape[0])

    @property
    def elements(self) -> int:
        """Numbers in both factors."""
        return self.down.numel() + self.up.numel()

    def to(self, device: torch.device, dtype: torch.dtype | None) -> LowRank:
        """The same elsewhere; `dtype` of None keeps its own."""
        return LowRank(self.down.to(device, dtype), self.up.to(device, dtype), self.scaling)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Low-rank weights by component of the pipeline and name of the layer in it."""

    layers: Mapping[str, Mapping[str, LowRank]]

    @property
    def rank(self) -> int:
        """The largest of any layer."""
        return max((low.rank for part in self.layers.values() for low in part.values()), default=0)

    @property
    def elements(self) -> int:
        """Numbers in all factors."""
        return sum(low.elements for layers in self.layers.values() for low in layers.values())


def write_adapter(adapter: Adapter, path: Path) -> None:
    """Writes `adapter`; the same weights make the same bytes."""
    tensors, scalings = {}, {}
    for component, layers in sorted(adapter.layers.items()):
        for layer, low in sorted(layers.items()):
            place = f"{component}/{layer}"
            tensors[f"{place}/down"] = low.down.contiguous()
            tensors[f"{place}/up"] = low.up.contiguous()
            scalings[place] = low.scaling
    document = {"version": VERSION, "scaling": scalings}
    save_file(tensors, path, metadata={_METADATA: json.dumps(document)})


def read_adapter(path: Path) -> Adapter:
    """The adapter in the file at `path`, on the CPU; `ConfigError` for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[_METADATA])
            if document["version"] != VERSION:
                found = document["version"]
                raise ConfigError(f"{path}: an adapter of version {found}; this reads {VERSION}")
            return Adapter(_layers(file, document))
    except FileNotFoundError:
        raise ConfigError(f"{path}: is missing") from None
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        raise ConfigError(
            f"{path}: is not an adapter that `make archive` packed, or is damaged"
        ) from None


def _layers(file: Any, document: Any) -> dict[str, dict[str, LowRank]]:
    layers: dict[str, dict[str, LowRank]] = {}
    for place, scaling in document["scaling"].items():
        component, _, layer = place.partition("/")
        low = LowRank(
            file.get_tensor(f"{place}/down"), file.get_tensor(f"{place}/up"), float(scaling)
        )
        layers.setdefault(component, {})[layer] = low
    return layers
