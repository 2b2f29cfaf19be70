"""The application: routes and what stands around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from diffusion_core import __version__
from diffusion_gateway.api import events, files, health, jobs, openai, page, scraping
from diffusion_gateway.api.access_log import AccessLog, hide_queries
from diffusion_gateway.api.body_limit import BodyLimit
from diffusion_gateway.api.openai_errors import OpenAIErrors
from diffusion_gateway.api.origins import Origins
from diffusion_gateway.api.problems import CatchAll, add_problems
from diffusion_gateway.api.reference import add_reference

if TYPE_CHECKING:
    from diffusion_gateway.gateway import Gateway

_HEADERS_IN = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer")
_HEADERS_OUT = ("ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After")


def create_app(gateway: Gateway) -> FastAPI:
    """The application in front of `gateway`, which opens and closes with it.

    One that only works (`role: worker`) has its health and metrics, and takes no jobs.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        hide_queries()
        async with gateway:
            yield

    app = FastAPI(
        title="torchserve-diffusers gateway",
        version=__version__,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    app.include_router(health.router)
    app.include_router(scraping.router)
    if gateway.settings.role != "worker":
        for part in (jobs, events, files, openai, page):
            app.include_router(part.router)
    add_problems(app)
    add_reference(app)
    _surround(app, gateway)
    return app


def _surround(app: FastAPI, gateway: Gateway) -> None:
    """Middleware, the innermost first."""
    settings = gateway.settings
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_HEADERS_IN,
            expose_headers=_HEADERS_OUT,
        )
    app.add_middleware(Origins, settings=settings)
    app.add_middleware(CatchAll)
    app.add_middleware(OpenAIErrors)
    app.add_middleware(AccessLog, counts=gateway.metrics)
