"""What a plan for caching takes for granted: config/caching.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from diffusion_costs.documents import Document, read_document

Above = Annotated[float, Field(gt=0)]


class Memory(Document):
    """A machine's memory, at its price over its gigabytes."""

    machine: str


class Nodes(Document):
    """A Redis of whole nodes.

    Attributes:
        service: of the price table, by the node hour.
        node_gb: memory of a node, and usable, the part of it that data may take.
    """

    service: str
    node_gb: Above
    usable: Annotated[float, Field(gt=0, le=1)]


class ObjectStorage(Document):
    """An object storage with a CDN in front; services of the price table.

    Attributes:
        stored: by the GB-month; writes, reads: by the thousand requests.
        cdn, egress: by the GB that the one delivers, and would otherwise leave by the other.
    """

    stored: str
    writes: str
    reads: str
    cdn: str
    egress: str


class CachingSettings(Document):
    """The file.

    Attributes:
        bytes_per_pixel: of a picture's file.
        lifetime_s: how long a picture is kept, as `cache_lifetime_s` of the gateway.
        sizes: how many sizes are tried, from one picture to all of them.
    """

    bytes_per_pixel: Above
    lifetime_s: Above
    sizes: Annotated[int, Field(ge=2, le=200)] = 24
    memory: Memory
    redis: Nodes
    object_storage: ObjectStorage

    @classmethod
    def read(cls, path: Path) -> CachingSettings:
        """The settings in the file at `path`; `ConfigError` where it holds none."""
        return read_document(path, cls)
