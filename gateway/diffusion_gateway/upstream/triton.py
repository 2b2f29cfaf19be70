"""An async client of one Triton, over gRPC: only there a client that leaves frees its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.model_server import (
    AnswerError,
    ConnectionLostError,
    FixedError,
    Registered,
    is_description,
)

try:
    from tritonclient.grpc.aio import InferenceServerClient

    from diffusion_gateway.upstream.triton_calls import Flight, errors, events
    from diffusion_gateway.upstream.triton_forms import Forms
    from diffusion_gateway.upstream.triton_messages import Form, event_of, inputs_of, outputs_of
except ImportError as error:
    raise ConfigError(
        f"endpoints: kind triton needs the extra `triton` ({error.name} is missing)",
        field="endpoints",
    ) from None

logger = logging.getLogger(__name__)

_CALL_S = 10.0
_LOAD_S = 900.0
_UNLOAD_S = 60.0
"""It waits its turn behind models that are being loaded."""
_REFUSED_S = 2.0
"""A Triton that does not load models for its clients says so at once."""


class Triton:
    """One Triton with models of this project's repositories.

    Of a model's two forms the decoupled one is asked, if it is loaded: it tells of steps and gives
    checkpoints. Both are one model, by the name without `_stream`.

    Triton goes on calling a model READY whose worker has ended, and never answers what that had in
    hand. So each look asks the worker itself; where it is gone, its requests are given up and the
    model is loaded anew, if Triton lets its clients do that (--model-control-mode=explicit).
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self.inference = settings.inference.rstrip("/")
        self._certificate = settings.certificate
        # Made at the first call: gRPC ties it to the event loop that is running then.
        self._opened: InferenceServerClient | None = None
        self._forms = Forms()
        self._flights: dict[str, set[Flight]] = {}
        self._loading: dict[str, asyncio.Task[UpstreamError | None]] = {}
        self._faults: dict[str, UpstreamError] = {}
        self._gone: set[str] = set()
        self._may_load = True

    async def close(self) -> None:
        """Ends all connections."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        if self._opened is not None:
            await self._opened.close()

    def label(self, name: str) -> str:
        """Where that model is asked, for people."""
        form = self._forms.get(name)
        return f"{self.inference}/{name if form is None else form.name}"

    async def models(self) -> list[str]:
        """Names of the models that were loaded since Triton started."""
        return await self._forms.look(self._client, _CALL_S)

    async def model(self, name: str) -> Registered:
        """What is registered as `name`; asks its worker. One that is silent is not ready: other
        models' workers may be well."""
        form = self._forms[name]
        state = self._forms.state(form)
        identity, ready = "", 0
        if state == "READY" and form.name not in self._loading:
            try:
                identity = (await self.describe(name, form.version))["runtime_identity"]
                ready = form.instances
                self._gone.discard(form.name)
                self._faults.pop(form.name, None)
            except (AnswerError, ConnectionLostError) as error:
                self._not_well(form, error)
        return Registered(
            name=name,
            version=form.version,
            archive=form.name,
            batch_size=form.batch_size,
            continuous=form.decoupled,
            workers=0 if state == "unloaded" else form.instances,
            ready=ready,
            processes=frozenset([identity] if identity else []),
        )

    async def describe(self, name: str, version: str) -> dict[str, Any]:
        """What the model says of itself; of the version that all it draws is of."""
        form = self._forms[name]
        if form.version != version:
            raise AnswerError(404, None, f"{name} {version} is not loaded any more", None)
        if form.decoupled:
            async with self.stream(name, {"describe": True}, _CALL_S) as events:
                (document,) = [event async for event in events]
        else:
            document = await self.predict(name, {"describe": True}, _CALL_S)
        if not is_description(document):
            raise UpstreamError(f"{name} does not describe itself as this gateway expects")
        return document

    async def scale(self, name: str, workers: int) -> None:
        """Loads the model, with as many workers as its configuration has, or unloads all its forms;
        returns before that is done."""
        if workers:
            loading = self._load(self._forms[name])
            await asyncio.wait([loading], timeout=_REFUSED_S)
            if loading.done() and (error := loading.result()) is not None:
                raise error
            return
        holder = self._forms.holder(name)
        if holder is not None:
            raise FixedError(f"{name} stays loaded for {holder}")
        # All forms, for one that stayed would go on holding the memory.
        for form in self._forms.loaded(name):
            with errors():
                await self._client.unload_model(form.name, client_timeout=_UNLOAD_S)

    def fault(self, name: str) -> UpstreamError | None:
        """Why the model was not loaded when that was last asked for; None while it loads."""
        form = self._forms.get(name)
        return None if form is None else self._faults.get(form.name)

    async def predict(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> dict[str, Any]:
        """The answer to a request; `timeout_s` is the longest silence."""
        form = self._forms[name]
        inputs, parameters = inputs_of(fields, form, traceparent)
        outputs = outputs_of(form, describe="describe" in fields)
        with self._flying(form) as flight, errors(flight):
            # A task of its own, for whoever finds that the worker is gone.
            flight.call = asyncio.ensure_future(
                self._client.infer(
                    form.name,
                    inputs,
                    outputs=outputs,
                    parameters=parameters or None,
                    client_timeout=timeout_s,
                )
            )
            return event_of(await flight.call)

    @asynccontextmanager
    async def stream(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A request's events; leaving the block early cancels it, which ends it there."""
        form = self._forms[name]
        inputs, parameters = inputs_of(fields, form, traceparent)
        request = {
            "model_name": form.name,
            "inputs": inputs,
            "outputs": outputs_of(form, describe="describe" in fields),
            "parameters": parameters or None,
        }
        with self._flying(form) as flight:
            flight.call = self._client.stream_infer(_once(request))
            try:
                yield events(flight, timeout_s)
            finally:
                flight.call.cancel()

    @property
    def _client(self) -> InferenceServerClient:
        if self._opened is None:
            scheme, _, address = self.inference.partition("://")
            certificate = None if self._certificate is None else str(self._certificate)
            self._opened = InferenceServerClient(
                address, ssl=scheme == "grpcs", root_certificates=certificate
            )
        return self._opened

    def _not_well(self, form: Form, error: AnswerError | ConnectionLostError) -> None:
        """The worker did not describe itself."""
        if isinstance(error, ConnectionLostError) or not error.worker_died:
            logger.warning("%s/%s does not answer: %s", self.inference, form.name, error)
            return
        for flight in list(self._flights.get(form.name, ())):
            flight.give_up()
        if form.name not in self._gone:
            self._gone.add(form.name)
            logger.warning("%s/%s: its worker is gone", self.inference, form.name)
        if self._may_load:
            self._load(form, anew=True)

    def _load(self, form: Form, *, anew: bool = False) -> asyncio.Task[UpstreamError | None]:
        if form.name not in self._loading:
            self._faults.pop(form.name, None)
            self._loading[form.name] = asyncio.create_task(self._loaded(form, anew))
        return self._loading[form.name]

    async def _loaded(self, form: Form, anew: bool) -> UpstreamError | None:
        """What kept the model from being loaded, if anything."""
        try:
            with errors():
                if anew:
                    # To load what is loaded already, from the same files, does nothing.
                    await self._client.unload_model(form.name, client_timeout=_UNLOAD_S)
                await self._client.load_model(form.name, client_timeout=_LOAD_S)
        except UpstreamError as error:
            logger.warning("%s/%s was not loaded: %s", self.inference, form.name, error)
            self._may_load = not isinstance(error, FixedError)
            self._faults[form.name] = error
            return error
        finally:
            del self._loading[form.name]
        return None

    @contextmanager
    def _flying(self, form: Form) -> Iterator[Flight]:
        flight = Flight()
        flights = self._flights.setdefault(form.name, set())
        flights.add(flight)
        try:
            yield flight
        finally:
            flights.discard(flight)


async def _once(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request
