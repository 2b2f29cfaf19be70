"""Metrics, as Prometheus reads them."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from diffusion_gateway.api.auth import gateway_of, reader
from diffusion_gateway.api.reference import problems
from diffusion_gateway.metrics import CONTENT_TYPE

router = APIRouter()


@router.get(
    "/metrics",
    dependencies=[Depends(reader)],
    response_class=Response,
    responses={
        200: {
            "description": "Samples.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems(),
    },
)
async def get_metrics(request: Request) -> Response:
    """Tells what the gateway counts, in Prometheus' text format; needs a key where keys are asked
    for."""
    gateway = gateway_of(request)
    return Response(await gateway.metrics.scrape(gateway.store), media_type=CONTENT_TYPE)
