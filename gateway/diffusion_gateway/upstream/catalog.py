"""The models that can be asked for: what all endpoints serve, looked at every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_core.capabilities import Capabilities
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import RequestSchema
from diffusion_gateway.errors import UnknownModelError, UpstreamError
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.upstream import families
from diffusion_gateway.upstream.endpoints import Endpoint, Registration
from diffusion_gateway.upstream.model_memory import ModelMemory, check_description, without_workers
from diffusion_gateway.upstream.model_server import AnswerError, Registered

logger = logging.getLogger(__name__)

REFRESH_S = 3.0

# A TorchServe that starts lists its models one by one, and an update renames none.
_FORGET_S = 60.0
# An endpoint that let so many looks pass is gone, even if connections to it still hang.
_UNANSWERED = 3
_LOOKS_AT_ONCE = 8
_FIRST_DESCRIPTION_S = 10.0


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model over all endpoints; one that sleeps is a model like any other.

    Attributes:
        description: the handler's own description.
        schema: what parses its requests.
        identities: runtime identities that its pictures may be drawn under.
        continuous: whether any registration streams.
        registrations: where it is served; several names of one archive are one model. None: it is
            served by others' workers, who told of it.
    """

    name: str
    description: dict[str, Any]
    schema: RequestSchema
    identities: tuple[str, ...]
    continuous: bool
    previews: bool
    checkpoints: bool
    registrations: tuple[Registration, ...]

    @classmethod
    def of(cls, name: str, registrations: Sequence[Registration]) -> ServedModel | None:
        """From its registrations; None where none has described itself yet."""
        told = [one for one in registrations if one.description is not None]
        if not told:
            return None
        # What runs tells more of what a request will meet than what was remembered.
        first = min(told, key=lambda one: not one.ready)
        assert first.description is not None
        identities = dict.fromkeys(one.runtime_identity for one in told)
        return cls.described(
            name,
            first.description,
            tuple(one for one in identities if one is not None),
            any(one.known.continuous for one in registrations),
            tuple(registrations),
        )

    @classmethod
    def described(
        cls,
        name: str,
        description: dict[str, Any],
        identities: tuple[str, ...],
        continuous: bool,
        registrations: tuple[Registration, ...] = (),
    ) -> ServedModel:
        """From what its handler says of it; `KeyError` or `ValueError` for a description of
        another kind."""
        capabilities = Capabilities.model_validate(description["capabilities"])
        schema = RequestSchema(
            capabilities,
            Limits.model_validate(description["limits"]),
            Defaults.model_validate(description["handler_defaults"]),
        )
        return cls(
            name=name,
            description=description,
            schema=schema,
            identities=identities,
            continuous=continuous,
            previews=continuous and capabilities.previews,
            checkpoints=continuous and capabilities.checkpoints,
            registrations=registrations,
        )

    @property
    def ready(self) -> bool:
        """Whether a worker is there that draws it."""
        return any(one.ready for one in self.registrations)

    @property
    def places(self) -> int:
        """Jobs that can be in hand at once."""
        return sum(one.places for one in self.registrations)


class Catalog:
    """Looks at every endpoint, and keeps what models said of themselves over restarts: beside an
    embedded store, else in `folder`.
    """

    def __init__(self, settings: GatewaySettings, folder: Path) -> None:
        self.endpoints = tuple(Endpoint.of(one) for one in settings.endpoints)
        self._memory = ModelMemory(settings.store_url, folder)
        self._models: dict[str, ServedModel] = {}
        self._told: dict[str, ServedModel] = {}
        self._made_of: dict[str, tuple[object, ...]] = {}
        self._describing: dict[Registration, asyncio.Task[None]] = {}
        for endpoint in self.endpoints:
            self._memory.recall(endpoint)
        self._compose()

    async def close(self) -> None:
        """Ends connections to the endpoints."""
        for task in self._describing.values():
            task.cancel()
        await asyncio.gather(*self._describing.values(), return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.server.close()

    async def run(self) -> None:
        """Looks at each endpoint every few seconds, for ever."""
        async with asyncio.TaskGroup() as group:
            for endpoint in self.endpoints:
                group.create_task(self._keep_looking(endpoint))

    async def refresh(self) -> None:
        """Looks at all endpoints once; returns when those that answer have been described."""
        await asyncio.gather(*(self._look(endpoint) for endpoint in self.endpoints))
        new = [task for one, task in self._describing.items() if one.description is None]
        if new:
            # A worker describes itself between its requests, and those may be long.
            await asyncio.wait(new, timeout=_FIRST_DESCRIPTION_S)
        self._compose()

    def get(self, model: str) -> ServedModel:
        """The model of that name; `UnknownModelError`."""
        try:
            return self._models[model]
        except KeyError:
            known = ", ".join(self._models) or "none"
            raise UnknownModelError(
                f"model: is not served here; served: {known}", field="model"
            ) from None

    def hear(self, told: Iterable[ServedModel]) -> None:
        """Takes models that others' workers serve; its own endpoints know better of theirs."""
        self._told = {model.name: model for model in told}
        self._compose()

    def models(self) -> list[ServedModel]:
        """All models, by name."""
        return list(self._models.values())

    def registrations(self) -> list[Registration]:
        """Everything registered anywhere, described or not."""
        return [one for endpoint in self.endpoints for one in endpoint.registrations.values()]

    def family(self, one: Registration) -> str:
        """The name of the model that a registration draws."""
        return families.family(one)

    def relatives(self, one: Registration) -> list[Registration]:
        """All registrations of the same model, described or not, itself among them."""
        name = self.family(one)
        return [other for other in self.registrations() if self.family(other) == name]

    def remember(self) -> None:
        """Keeps what is known of the models for the next start; writes a file."""
        self._memory.remember(self.registrations())

    async def look(self, endpoint: Endpoint) -> None:
        """Looks at one endpoint now."""
        await self._look(endpoint)
        self._compose()

    async def _keep_looking(self, endpoint: Endpoint) -> None:
        while True:
            await self.look(endpoint)
            await asyncio.sleep(REFRESH_S)

    async def _look(self, endpoint: Endpoint) -> None:
        try:
            names = [name for name in await endpoint.server.models() if endpoint.serves(name)]
            gate = asyncio.Semaphore(_LOOKS_AT_ONCE)
            found = await asyncio.gather(*(_look_at(endpoint, name, gate) for name in names))
        except UpstreamError as error:
            endpoint.unanswered += 1
            if endpoint.unanswered == _UNANSWERED or endpoint.unanswered == 1:
                logger.warning("%s does not answer: %s", endpoint.server.inference, error)
            if endpoint.unanswered >= _UNANSWERED:
                endpoint.alive = False
            return
        endpoint.unanswered = 0
        endpoint.alive = True
        for known in found:
            if known is not None:
                self._note(endpoint, known)
        self._forget_gone(endpoint)

    def _note(self, endpoint: Endpoint, known: Registered) -> None:
        one = endpoint.registrations.get(known.name)
        if one is None:
            one = endpoint.registrations[known.name] = Registration(endpoint, known)
        elif (one.known.version, one.known.archive) != (known.version, known.archive):
            one.described = frozenset()
            if not known.ready:
                # It is another archive, and nobody is there to tell what it draws.
                one.description = None
        one.known = known
        one.seen = time.monotonic()
        families.note(one)
        one.wanted = known.workers or one.wanted
        if known.ready and known.processes != one.described and one not in self._describing:
            task = asyncio.create_task(self._describe(one))
            self._describing[one] = task

    def _forget_gone(self, endpoint: Endpoint) -> None:
        for name, one in list(endpoint.registrations.items()):
            gone = time.monotonic() - one.seen
            if gone > REFRESH_S:
                # Not in the list that was just read: nobody is there to work.
                one.known = without_workers(one.known)
                one.copied = None
            if gone > _FORGET_S and not one.outstanding:
                del endpoint.registrations[name]

    async def _describe(self, one: Registration) -> None:
        known = one.known
        try:
            description = await one.endpoint.server.describe(known.name, known.version)
            check_description(description)
            one.description = description
            one.described = known.processes
            await asyncio.to_thread(self.remember)
        except UpstreamError as error:
            logger.warning("%s did not describe itself: %s", one.label, error)
        except (KeyError, ValueError) as error:
            logger.warning("%s has a description of another kind: %s", one.label, error)
            one.described = known.processes
        finally:
            del self._describing[one]
        self._compose()

    def _compose(self) -> None:
        """Makes the models anew whose registrations or descriptions have changed."""
        groups: dict[str, list[Registration]] = {}
        for endpoint in self.endpoints:
            for one in endpoint.registrations.values():
                groups.setdefault(families.family(one), []).append(one)
        made: dict[str, ServedModel] = {}
        for name, group in sorted(groups.items()):
            parts = (*group, *(id(one.description) for one in group), *(one.ready for one in group))
            old = self._models.get(name)
            if old is not None and self._made_of.get(name) == parts:
                made[name] = old
                continue
            model = ServedModel.of(name, group)
            if model is not None:
                made[name] = model
                self._made_of[name] = parts
        self._models = dict(sorted({**self._told, **made}.items()))


async def _look_at(endpoint: Endpoint, name: str, gate: asyncio.Semaphore) -> Registered | None:
    async with gate:
        try:
            return await endpoint.server.model(name)
        except AnswerError as error:
            # It was removed since the list was read.
            if error.answered == 404:
                return None
            raise
