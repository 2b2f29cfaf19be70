"""A client of TorchServe's management and inference APIs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from serving.errors import Trouble
from serving.registration import READY, Registration

# Unpacking a large archive, and a picture of many steps, can take minutes; connecting cannot.
_TIMEOUT = (5, 3600)

# A synchronous call would hold one of the threads that read all connections until the model is
# loaded, and every request on that thread's connections with it.
_AT_ONCE = {"synchronous": "false"}
_LOOK_S = 0.1

_LOAD_S = 3600.0
"""Longer than the startupTimeout of any model, after which TorchServe itself ends a worker."""


class Management:
    """Models of one TorchServe: registered, scaled, described, removed.

    Args:
        management: address of the management API.
        inference: address of the inference API.
        certificate: file of the certificate to trust, for https.
        keys: TorchServe's key_file.json where it asks for tokens.
    """

    def __init__(
        self,
        management: str,
        inference: str,
        *,
        certificate: str | None = None,
        keys: Path | None = None,
    ) -> None:
        self.url = management
        self.inference = inference
        self._keys = keys
        self._session = requests.Session()
        # The server is this machine: a proxy in the environment has no part in it.
        self._session.trust_env = False
        self._session.verify = certificate or True

    def models(self) -> list[str]:
        """Names of the registered models."""
        document = self._management("GET", "/models", params={"limit": 1000})
        return [model["modelName"] for model in document["models"]]

    def versions(self, name: str) -> list[Registration]:
        """Every registered version of `name`; none where it is unknown."""
        if name not in self.models():
            return []
        default = self._management("GET", f"/models/{name}")[0]["modelVersion"]
        found = self._management("GET", f"/models/{name}/all")
        return [Registration.of(version, default) for version in found]

    def version(self, name: str, version: str | None = None) -> Registration:
        """One version of a model, the default one where none is named; `Trouble` if unknown."""
        for found in self.versions(name):
            if found.version == version or (version is None and found.default):
                return found
        known = ", ".join(self.models()) or "none"
        raise Trouble(f"No model {name} {version or ''} is registered (registered: {known}).")

    def register(
        self, archive: str, name: str, *, batch_size: int | None = None, delay: int | None = None
    ) -> Registration:
        """Registers `archive` of the model store; returns when its workers are READY.

        A batch size or delay (ms) given here wins over the archive's model-config.yaml.
        `Trouble` where it does not load; it is not registered then.
        """
        params: dict[str, Any] = {"url": archive, "model_name": name, **_AT_ONCE}
        # TorchServe starts no worker unless told to; how many is for the model config to say.
        params["initial_workers"] = 1
        if batch_size is not None:
            params["batch_size"] = batch_size
        if delay is not None:
            params["max_batch_delay"] = delay
        before = {found.version for found in self.versions(name)}
        self._management("POST", "/models", params=params)
        (version,) = {found.version for found in self.versions(name)} - before
        try:
            return self.wait_ready(name, version, _LOAD_S)
        except Trouble:
            self.unregister(name, version)
            raise

    def scale(self, name: str, version: str, workers: int) -> Registration:
        """Sets the number of workers, and waits until so many are there and READY.

        TorchServe kills those it takes away, whatever they do.
        """
        params = {"min_worker": workers, "max_worker": workers, **_AT_ONCE}
        self._management("PUT", f"/models/{name}/{version}", params=params)
        return self._wait(name, version, lambda found: _has(found, workers), _LOAD_S)

    def make_default(self, name: str, version: str) -> None:
        """Sends the requests that name no version to this one."""
        self._management("PUT", f"/models/{name}/{version}/set-default")

    def unregister(self, name: str, version: str) -> None:
        """Removes a version at once: drain it first."""
        self._management("DELETE", f"/models/{name}/{version}")

    def wait_ready(
        self, name: str, version: str | None = None, patience: float = 900.0
    ) -> Registration:
        """The version once all its workers are READY.

        `Trouble` after `patience` seconds, or as soon as a worker ended while it loaded.
        """
        return self._wait(name, version, lambda found: found.is_ready, patience)

    def _wait(
        self,
        name: str,
        version: str | None,
        done: Callable[[Registration], bool],
        patience: float,
    ) -> Registration:
        end = time.monotonic() + patience
        loading: dict[str, int] = {}
        while True:
            found = self.version(name, version)
            if done(found):
                return found
            for worker in found.workers:
                # TorchServe tells of no failure; it starts another process in the place of the one.
                if worker.loads and worker.pid != loading.setdefault(worker.port, worker.pid):
                    raise Trouble(f"{name} did not load; `make logs` shows what it said.")
            if time.monotonic() > end:
                raise Trouble(
                    f"{name} {found.version} is not ready after {patience:.0f} s; `make logs` "
                    "shows what its workers say."
                )
            time.sleep(_LOOK_S)

    def predict(
        self, name: str, fields: dict[str, Any], accept: str = "application/json"
    ) -> requests.Response:
        """The answer to a request, whatever its status."""
        return self._authorized(
            "inference",
            lambda headers: self._session.post(
                f"{self.inference}/predictions/{name}",
                json=fields,
                headers={**headers, "Accept": accept},
                timeout=_TIMEOUT,
            ),
        )

    def describe(self, name: str) -> dict[str, Any]:
        """What the model's handler says of itself: limits, defaults, schedulers."""
        found = self.version(name)
        if found.continuous:
            # The describe call of the management API never returns in this mode.
            response = self.predict(f"{name}/{found.version}/describe", {})
            return dict(_document(response))
        described = self._management("GET", f"/models/{name}", params={"customized": "true"})
        metadata = described[0].get("customizedMetadata")
        if not isinstance(metadata, dict):
            raise Trouble(f"{name} does not describe itself.")
        return metadata

    def _management(self, method: str, path: str, params: dict[str, Any] | None = None) -> Any:
        response = self._authorized(
            "management",
            lambda headers: self._session.request(
                method, self.url + path, params=params, headers=headers, timeout=_TIMEOUT
            ),
        )
        return _document(response)

    def _authorized(
        self, kind: str, call: Callable[[dict[str, str]], requests.Response]
    ) -> requests.Response:
        """Calls with the token of `kind`, and once more with a new one where it had expired."""
        response = call(self._headers(kind))
        if self._keys is not None and response.status_code == 400 and "oken" in response.text:
            self._renew(kind)
            response = call(self._headers(kind))
        return response

    def _headers(self, kind: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key(kind)}"} if self._keys else {}

    def _key(self, kind: str) -> str:
        assert self._keys is not None
        try:
            return str(json.loads(self._keys.read_text())[kind]["key"])
        except (OSError, ValueError, KeyError):
            raise Trouble(f"{self._keys} holds no {kind} token.") from None

    def _renew(self, kind: str) -> None:
        headers = {"Authorization": f"Bearer {self._key('API')}"}
        # The new token is not in the answer, TorchServe writes it to the key file.
        self._session.get(
            f"{self.url}/token", params={"type": kind}, headers=headers, timeout=_TIMEOUT
        ).raise_for_status()


def _has(found: Registration, workers: int) -> bool:
    return len(found.workers) == workers and all(one.status == READY for one in found.workers)


def _document(response: requests.Response) -> Any:
    """The JSON of an answer; `Trouble` with TorchServe's own words where it refused."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if response.ok and document is not None:
        return document
    said = document.get("message") or document.get("detail") if isinstance(document, dict) else None
    raise Trouble(f"TorchServe refused ({response.status_code}): {said or response.reason}")
