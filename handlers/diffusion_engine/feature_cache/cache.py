"""The feature cache of one denoiser."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from diffusion_core.feature_cache import Deep, FirstBlock
from diffusion_engine.feature_cache.anatomy import anatomy_of
from diffusion_engine.feature_cache.blocks import install
from diffusion_engine.feature_cache.features import PADDING, Features, Row
from diffusion_engine.feature_cache.passage import Passage


class FeatureCache:
    """Lets rows of a denoiser's calls reuse what they came to at an earlier step.

    Only the engine's thread calls; others may read the counts.

    Args:
        model: the denoiser; its blocks are hooked, and answer as they did outside of `reusing`.
        exact: see `Passage`.

    Attributes:
        rows: rows of calls that could have skipped the deep part.
        skipped: those that did.

    Raises `ConfigError` for a model that this kind of cache is not known for.
    """

    def __init__(self, model: Any, settings: FirstBlock | Deep, *, exact: bool = False) -> None:
        self.rows = 0
        self.skipped = 0
        self._anatomy = anatomy_of(model, settings)
        self._interval = settings.interval
        self._threshold = settings.threshold if isinstance(settings, FirstBlock) else None
        self._exact = exact
        self._most = settings.max_mb << 20
        self._now: Passage | None = None
        self._requests: weakref.WeakValueDictionary[int, Features] = weakref.WeakValueDictionary()
        install(self._anatomy, lambda: self._now)

    @property
    def nbytes(self) -> int:
        """Memory that the requests in flight hold."""
        # References are listed at once: a walk would fail when a request comes meanwhile.
        held = (reference() for reference in self._requests.valuerefs())
        return sum(features.nbytes for features in held if features is not None)

    @property
    def has_room(self) -> bool:
        """Whether they hold less than `max_mb`."""
        return self.nbytes < self._most

    def for_request(self) -> Features:
        """What a new request keeps of this denoiser; it is gone with the request."""
        features = Features(self._interval)
        self._requests[id(features)] = features
        return features

    def rows_of(
        self, features: Features | None, count: int, arguments: Mapping[str, Any]
    ) -> list[Row | None]:
        """The rows of a request's call; none that could skip where its arguments forbid it."""
        forbidden = any(arguments.get(name) is not None for name in self._anatomy.whole_if)
        if features is None or forbidden:
            return [None] * count
        return [*features.rows(count)]

    @contextmanager
    def reusing(self, rows: Sequence[Row | None]) -> Iterator[None]:
        """Within, one call of the denoiser with these rows; they keep what it came to."""
        if all(row is None or row is PADDING for row in rows):
            yield
            return
        passage = Passage(rows, threshold=self._threshold, exact=self._exact)
        self._now = passage
        try:
            yield
        finally:
            self._now = None
        passage.commit()
        self.rows += sum(row is not None and row is not PADDING for row in rows)
        self.skipped += passage.skipped
