"""Checkpoints: a snapshot as sealed bytes that another worker can go on from.

Format, version 1: 32 bytes of HMAC-SHA256 over the rest, then a safetensors file whose metadata
holds one JSON document under `checkpoint`. No pickle: reading one runs no code. A checkpoint is
bound to the identity (archive, device type, dtype, library versions) and to its request; it holds
no prompt, for the request comes with it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from dataclasses import asdict
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from diffusion_core.errors import InvalidFieldError
from diffusion_core.identity import digest
from diffusion_core.request import GenerationRequest
from diffusion_core.request_fields import IMAGE_FIELDS
from diffusion_engine.snapshot import Snapshot

VERSION = 1

KEY_VARIABLE = "DIFFUSION_CHECKPOINT_KEY"
"""The environment variable with the secret, hexadecimal, that all workers of a pool share."""

_MAC_BYTES = 32
_SHORTEST_KEY = 16

# What may differ between the request that began and the one that goes on: nothing of the picture.
_FREE = frozenset({"timeout_s", "stream", "preview_every", "checkpoint_every", "checkpoint"})


class CheckpointSealer:
    """Seals snapshots and opens them again.

    Args:
        key: the shared secret.
        identity: `diffusion_core.identity.runtime_identity` of this worker.
    """

    def __init__(self, key: bytes, identity: str) -> None:
        self._key = key
        self._identity = identity

    @classmethod
    def from_environment(cls, identity: str) -> CheckpointSealer | None:
        """A sealer with the environment's key; None where none is set.

        Raises `ValueError` for a key that is not hexadecimal or shorter than 16 bytes.
        """
        text = os.environ.get(KEY_VARIABLE)
        if not text:
            return None
        try:
            key = bytes.fromhex(text)
        except ValueError:
            raise ValueError(f"{KEY_VARIABLE} must be hexadecimal") from None
        if len(key) < _SHORTEST_KEY:
            raise ValueError(f"{KEY_VARIABLE} must have at least {_SHORTEST_KEY} bytes")
        return cls(key, identity)

    def seal(self, snapshot: Snapshot, request: GenerationRequest) -> bytes:
        """The snapshot of a request, its seed drawn, as bytes."""
        document = {
            "version": VERSION,
            "identity": self._identity,
            "request": request_digest(request),
            "seed": request.seed,
            "step": snapshot.step,
            "scheduler": snapshot.scheduler,
            "generators": len(snapshot.generators),
        }
        tensors = {"latents": snapshot.latents}
        tensors |= {f"scheduler.{i}": tensor for i, tensor in enumerate(snapshot.tensors)}
        tensors |= {f"generator.{i}": state for i, state in enumerate(snapshot.generators)}
        body = save(tensors, metadata={"checkpoint": json.dumps(document)})
        return b"".join((self._mac(body), body))

    def open(self, data: bytes, request: GenerationRequest) -> tuple[Snapshot, int]:
        """The snapshot in `data` and its seed, for the same request.

        Raises `InvalidFieldError` for what is cut, changed, foreign, old, or another request's.
        """
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        # The seal is checked before anything is parsed: only a worker's own bytes are read.
        if not hmac.compare_digest(mac, self._mac(body)):
            raise _refused("is damaged, or sealed with another key")
        try:
            document, tensors = _metadata(body), load(body)
        except (SafetensorError, ValueError, KeyError):
            raise _refused("cannot be read") from None
        if document["version"] != VERSION:
            raise _refused(f"has version {document['version']}; this worker reads {VERSION}")
        if document["identity"] != self._identity:
            raise _refused("comes from another archive, device type, dtype or library version")
        if document["request"] != request_digest(request, document["seed"]):
            raise _refused("belongs to another request")
        generators = range(document["generators"])
        parts = range(len(tensors) - 1 - len(generators))
        snapshot = Snapshot(
            step=document["step"],
            latents=tensors["latents"],
            scheduler=document["scheduler"],
            tensors=tuple(tensors[f"scheduler.{i}"] for i in parts),
            generators=tuple(tensors[f"generator.{i}"] for i in generators),
        )
        return snapshot, document["seed"]

    def _mac(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()


def request_digest(request: GenerationRequest, seed: int | None = None) -> str:
    """SHA-256, hexadecimal, of all in a request that decides its picture.

    `seed` stands in where the request names none, so that a drawn one goes on.
    """
    fields = {name: value for name, value in _plain(request).items() if name not in _FREE}
    fields["seed"] = request.seed if request.seed is not None else seed
    return digest(fields)


def _plain(request: GenerationRequest) -> dict[str, Any]:
    plain = {name: getattr(request, name) for name in asdict(request)}
    for name in IMAGE_FIELDS:
        source = plain[name]
        plain[name] = None if source is None else hashlib.sha256(source.data).hexdigest()
    return plain


def _metadata(body: bytes) -> dict[str, Any]:
    # safetensors: eight bytes of header length, little-endian, then the header, JSON.
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    document: dict[str, Any] = json.loads(header["__metadata__"]["checkpoint"])
    return document


def _refused(reason: str) -> InvalidFieldError:
    return InvalidFieldError(f"checkpoint: {reason}", field="checkpoint")
