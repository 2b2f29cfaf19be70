"""Tags: one definition for metrics, stored objects, Kubernetes, cloud resources and bills."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from diffusion_costs.documents import Document, read_document

KEYS = ("service", "environment", "model-id", "component")
"""In this order wherever they are listed."""

UNTAGGED = "(untagged)"
"""What reports call a cost without the tag in question; no value of a tag can be that."""

KUBERNETES_PREFIX = "diffusion.dev/"

_VALUE = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""What Kubernetes, Google's labels, S3's object tags and Azure's all take."""

_TOLD = ("inference-worker", "model-storage")
"""Components that the gateway itself puts on metrics and stored files."""

Value = Annotated[str, Field(pattern=_VALUE)]

_OTHER = re.compile(r"[^a-z0-9._-]+")


class Tags(Document):
    """Who pays: `models` gives a model's id where it is not the name that it is served under.

    Components are parts of the system that cost money of their own.
    """

    service: Value = "diffusion-inference"
    environment: Value = "production"
    models: Mapping[str, Value] = Field(default_factory=dict)
    components: tuple[Value, ...] = ("api-server", "inference-worker", "model-storage")

    @model_validator(mode="after")
    def _has_what_is_told(self) -> Tags:
        missing = [one for one in _TOLD if one not in self.components]
        if missing:
            raise ValueError(f"components: must name {' and '.join(missing)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Tags:
        """The tags in the file at `path`; `ConfigError` where they are none."""
        return read_document(path, cls)

    def model_id(self, model: str) -> str:
        """A model's id: as `models` says, else its name in letters that every system takes."""
        return self.models.get(model) or as_value(model)

    def of(self, component: str, model: str | None = None) -> dict[str, str]:
        """The tags of a part of the system; those of a model's are four, of others three."""
        if component not in self.components:
            raise ValueError(f"{component} is none of the components {', '.join(self.components)}")
        tags = {"service": self.service, "environment": self.environment}
        if model is not None:
            tags["model-id"] = self.model_id(model)
        return {**tags, "component": component}


def as_value(text: str) -> str:
    """Text as a tag's value: lower case, other characters as `-`, 63 at most."""
    return _OTHER.sub("-", text.lower())[:63].strip("._-") or "unnamed"


def prometheus_labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as labels of metrics, where a name may hold no hyphen."""
    return {name.replace("-", "_"): value for name, value in tags.items()}


def kubernetes_labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as labels of Kubernetes objects, under a prefix of their own."""
    return {KUBERNETES_PREFIX + name: value for name, value in tags.items()}


def tags_of(resource: Mapping[str, str]) -> dict[str, str]:
    """The tags among those of a bill's or cluster's resource, however the place spells them.

    AWS shows a user's tags as `user:model-id`, Kubernetes' as above, Prometheus as `model_id`.
    """
    found = {}
    for name, value in resource.items():
        plain = name.rsplit("/", 1)[-1].removeprefix("user:").replace("_", "-").lower()
        if plain in KEYS and value:
            found[plain] = value
    return found
