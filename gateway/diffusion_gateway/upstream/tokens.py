"""Tokens of a TorchServe that asks for them: read from its key file, renewed when they expire."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Literal

import httpx2

from diffusion_gateway.errors import UpstreamError

Kind = Literal["inference", "management"]


class Tokens:
    """The keys in TorchServe's key_file.json, which it writes anew whenever one is renewed.

    Renewing one ends the validity of the one before it, for every other client too. So a key that
    was refused is first looked for in the file again: another client may have renewed it.

    Args:
        path: the key file.
        management: address of the management API, which renews.
    """

    def __init__(self, path: Path, management: str, client: httpx2.AsyncClient) -> None:
        self._path = path
        self._management = management
        self._client = client
        self._keys: dict[str, str] = {}
        self._lock = asyncio.Lock()

    def key(self, kind: str) -> str:
        """The key as last read; `UpstreamError` where the file holds none."""
        if kind not in self._keys:
            self._read()
        try:
            return self._keys[kind]
        except KeyError:
            raise UpstreamError(f"TorchServe's key file holds no {kind} token") from None

    async def replace(self, kind: Kind, refused: str) -> str:
        """A key in place of one that was refused; however many ask at once, one is renewed."""
        async with self._lock:
            self._read()
            if self.key(kind) == refused:
                await self._renew(kind)
                self._read()
            return self.key(kind)

    async def _renew(self, kind: Kind) -> None:
        try:
            answer = await self._client.get(
                f"{self._management}/token",
                params={"type": kind},
                headers={"Authorization": f"Bearer {self.key('API')}"},
            )
        except httpx2.TransportError as error:
            told = type(error).__name__
            raise UpstreamError(f"TorchServe did not renew a token: {told}") from None
        # The new token is not in the answer, TorchServe writes it to the key file.
        if answer.status_code != 200:
            raise UpstreamError(f"TorchServe did not renew a token: {answer.status_code}")

    def _read(self) -> None:
        try:
            document = json.loads(self._path.read_text())
            self._keys = {kind: str(entry["key"]) for kind, entry in document.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            told = type(error).__name__
            raise UpstreamError(f"TorchServe's key file cannot be read: {told}") from None
