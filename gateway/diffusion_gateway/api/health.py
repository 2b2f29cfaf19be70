"""Health and models: whether the gateway lives, whether it can work, and what it serves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic_core import to_json

from diffusion_core.errors import OverloadedError, ServingError
from diffusion_gateway.api.auth import gateway_of, reader
from diffusion_gateway.api.bodies import no_parameters
from diffusion_gateway.api.problems import problem_response
from diffusion_gateway.api.reference import offered_schema, problems
from diffusion_gateway.api.schemas import Health, ModelList
from diffusion_gateway.errors import ResultsUnavailableError, StoreUnavailableError
from diffusion_gateway.upstream.catalog import ServedModel

router = APIRouter()

_PATIENCE_S = 5.0
_FRESH_S = 1.0
"""However often it is asked, store and storage are tried once in so long."""


@router.get(
    "/healthz",
    response_class=Response,
    responses={
        200: {"description": "It lives.", "model": Health},
        **problems(open_to_all=True),
    },
)
async def healthz() -> Response:
    """Says that the process lives; nothing else is looked at."""
    return Response(b'{"status":"ok"}', media_type="application/json")


@router.get(
    "/readyz",
    response_class=Response,
    responses={
        200: {"description": "It can work.", "model": Health},
        **problems(503, open_to_all=True),
    },
)
async def readyz(request: Request) -> Response:
    """Says whether jobs can be taken and done: the store and the results answer, and a model is
    served."""
    error = await readiness(request.app)
    if error is not None:
        return problem_response(error)
    return Response(b'{"status":"ready"}', media_type="application/json")


async def readiness(app: FastAPI) -> ServingError | None:
    """What keeps the gateway from working, if anything."""
    known: tuple[float, asyncio.Task[ServingError | None]] | None
    known = getattr(app.state, "readiness", None)
    if known is None or time.monotonic() - known[0] >= _FRESH_S:
        known = app.state.readiness = (time.monotonic(), asyncio.create_task(_look(app)))
    return await asyncio.shield(known[1])


async def _look(app: FastAPI) -> ServingError | None:
    gateway = app.state.gateway
    try:
        await _in_time(gateway.store.ping(), StoreUnavailableError("the job store is silent"))
        await _in_time(
            gateway.results.ping(), ResultsUnavailableError("the object storage is silent")
        )
    except ServingError as error:
        error.retry_after = error.retry_after or _PATIENCE_S
        return error
    if gateway.draining or gateway.watchers.closing.is_set():
        return OverloadedError("the gateway is ending", retry_after=1.0)
    if not any(_can_draw(model) for model in gateway.catalog.models()):
        return OverloadedError("no model is ready", retry_after=_PATIENCE_S)
    return None


def _can_draw(model: ServedModel) -> bool:
    """Whether a worker is there, or the model only sleeps and a job wakes it. What others' workers
    serve can be asked for while none of them is there: jobs wait until one comes."""
    return model.ready or not model.registrations or any(one.asleep for one in model.registrations)


async def _in_time(answer: Any, late: ServingError) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await answer
    except TimeoutError:
        raise late from None


@router.get(
    "/models",
    dependencies=[Depends(reader), Depends(no_parameters)],
    response_class=Response,
    responses={200: {"description": "The models.", "model": ModelList}, **problems(422)},
)
async def list_models(request: Request) -> Response:
    """Lists the models that are served, with bounds, defaults and the schema of a request."""
    models = [
        {
            "name": model.name,
            "tasks": list(model.schema.capabilities.tasks),
            "limits": model.schema.limits.model_dump(mode="json"),
            "defaults": model.schema.defaults.model_dump(mode="json"),
            "schedulers": list(model.schema.capabilities.schedulers),
            "default_scheduler": model.schema.capabilities.default_scheduler,
            "size_multiple": model.schema.capabilities.size_multiple,
            "tokenizer_limit": model.schema.capabilities.tokenizer_limit,
            "identity": model.description.get("identity"),
            "pipeline_class": model.schema.capabilities.pipeline_class,
            "continuous": model.continuous,
            "previews": model.previews,
            "checkpoints": model.checkpoints,
            "request_schema": {
                task: offered_schema(model.schema, task) for task in model.schema.capabilities.tasks
            },
        }
        for model in gateway_of(request).catalog.models()
    ]
    return Response(to_json({"models": models}), media_type="application/json")
