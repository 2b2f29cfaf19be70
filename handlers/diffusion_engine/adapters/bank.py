"""The adapters of a served pipeline: loaded once, added to any row of any call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.limits import Limits
from diffusion_engine.adapters.layers import AdaptedLayer
from diffusion_engine.adapters.stacks import (
    NO_BLEND,
    Blend,
    Stack,
    stack_by_row,
    stack_for_all,
)
from diffusion_engine.adapters.weights import Adapter, LowRank


class AdapterBank:
    """Adapters by name, and the layers of the models that they change.

    Only the engine's thread uses it once requests are served. Adding is safe between two calls,
    whoever is in flight: no module is replaced.

    Args:
        components: the pipeline's models by name.
        device: where adapters' weights are kept.
        most: adapters that one request may have.
    """

    def __init__(
        self, components: Mapping[str, Any], device: torch.device, most: int = Limits().max_adapters
    ) -> None:
        self._modules = {
            name: dict(model.named_modules())
            for name, model in components.items()
            if isinstance(model, torch.nn.Module)
        }
        self._device = device
        self._most = most
        self._components: dict[str, frozenset[str]] = {}
        self._ranks: dict[str, int] = {}
        self._layers: dict[str, dict[str, _Layer]] = {}
        self._apart: set[str] = set()
        # The last call's stacks, by component: calls follow each other with the same rows.
        self._kept: dict[str, _Kept] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that there are, sorted."""
        return tuple(sorted(self._components))

    def describe(self) -> dict[str, Any]:
        """Rank and components of each adapter."""
        return {
            name: {"rank": self._ranks[name], "components": sorted(self._components[name])}
            for name in self.names
        }

    def add(self, name: str, adapter: Adapter) -> None:
        """Takes in an adapter; `ConfigError` names what does not fit, and nothing is changed."""
        if name in self._components:
            raise _unfit(name, "is there already")
        found = [
            (component, layer, *self._fitted(name, component, layer, low))
            for component, layers in adapter.layers.items()
            for layer, low in layers.items()
        ]
        if not found:
            raise _unfit(name, "holds no weights")
        for component, layer, adapted, low in found:
            places = self._layers.setdefault(component, {})
            places.setdefault(layer, _Layer(adapted, {})).adapters[name] = low
        self._components[name] = frozenset(adapter.layers)
        self._ranks[name] = adapter.rank
        self._kept.clear()

    def blend(self, component: str, weights: Mapping[str, float] | None) -> Blend:
        """What a request with these weights adds to a component; the others do not touch it.

        Raises `InvalidFieldError` for a name that is not there.
        """
        weights = weights or {}
        if not weights.keys() <= self._components.keys():
            raise InvalidFieldError(
                f"adapters: there are: {', '.join(self.names)}", field="adapters"
            )
        return tuple(
            (name, weight)
            for name, weight in sorted(weights.items())
            if weight and component in self._components[name]
        )

    def shares(self, component: str) -> bool:
        """Whether rows of different blends may share a call of the component."""
        return component not in self._apart

    def keep_apart(self, component: str) -> None:
        """From now on only rows of one blend share: a layer does not see the rows as rows."""
        self._apart.add(component)

    def forget(self) -> None:
        """Lets go of the stacks kept for the last calls."""
        self._kept.clear()

    @contextmanager
    def adding(
        self, component: str, rows: Sequence[Blend], *, exact: bool = False
    ) -> Iterator[None]:
        """Within, the component's layers add each row's blend; all rows come in one call.

        Args:
            rows: a blend for each row of the call. Where all are alike, how many does not matter.
            exact: products have one shape whatever the blends, so that a row is the same in every
                bit in any company.
        """
        if all(blend == NO_BLEND for blend in rows):
            yield
            return
        begun: list[AdaptedLayer] = []
        try:
            for layer, stack in self._stacks(component, tuple(rows), exact):
                layer.begin(stack)
                begun.append(layer)
            yield
        finally:
            for layer in begun:
                layer.end()

    def _stacks(
        self, component: str, rows: tuple[Blend, ...], exact: bool
    ) -> list[tuple[AdaptedLayer, Stack]]:
        kept = self._kept.pop(component, None)
        if kept is None or (kept.rows, kept.exact) != (rows, exact):
            # The old ones go first: both together may be more than the device has.
            del kept
            stacks = [
                (layer.adapted, stack)
                for layer in self._layers.get(component, {}).values()
                if (stack := self._stack(layer, component, rows, exact)) is not None
            ]
            kept = _Kept(rows, exact, stacks)
        self._kept[component] = kept
        return kept.stacks

    def _stack(
        self, layer: _Layer, component: str, rows: tuple[Blend, ...], exact: bool
    ) -> Stack | None:
        if len(set(rows)) > 1 or (exact and self.shares(component)):
            return stack_by_row(layer.adapters, rows, self._most if exact else None)
        return stack_for_all(layer.adapters, rows[0])

    def _fitted(
        self, name: str, component: str, layer: str, low: LowRank
    ) -> tuple[AdaptedLayer, LowRank]:
        """The layer for the weights, and the weights where and as the layer's own are."""
        place = f"{component}.{layer}"
        known = self._layers.get(component, {}).get(layer)
        module = self._modules.get(component, {}).get(layer)
        if module is None:
            raise _unfit(name, f"the pipeline has no layer {place}")
        try:
            adapted = known.adapted if known else AdaptedLayer(module)
        except ValueError as error:
            raise _unfit(name, f"{place}: {error}") from None
        if not adapted.fits(low):
            raise _unfit(name, f"{place} has another shape")
        moved = low.to(self._device, adapted.dtype)
        if not (torch.isfinite(moved.down).all() and torch.isfinite(moved.up).all()):
            raise _unfit(name, f"{place}: holds weights that are not finite numbers")
        return adapted, moved


class _Layer(NamedTuple):
    adapted: AdaptedLayer
    adapters: dict[str, LowRank]


class _Kept(NamedTuple):
    rows: tuple[Blend, ...]
    exact: bool
    stacks: list[tuple[AdaptedLayer, Stack]]


def _unfit(name: str, reason: str) -> ConfigError:
    return ConfigError(f"adapter {name}: {reason}", field="handler.adapters")
