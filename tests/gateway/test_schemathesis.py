"""The whole OpenAPI document against the server: nothing it allows, and nothing beside it, ends in
a 5xx; answers are what the document says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import settings

from api_rig import Server, claim, finish, make_gateway, serving
from diffusion_gateway.api.app import create_app
from diffusion_gateway.gateway import Gateway
from schema_rig import CHECKS, PATIENT

_QUIET = settings(**PATIENT)

_UNBOUNDED: dict[str, Any] = {
    "requests_per_second_per_tenant": 1e6,
    "request_burst_per_tenant": 10**6,
    "max_active_per_tenant": 10**6,
    "max_waiting": 10**6,
    "max_wait_s": 0.01,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    gateway = make_gateway(tmp_path_factory.mktemp("gateway"), **_UNBOUNDED)
    gateway.loops["artist"] = partial(_draw_all, gateway)
    with serving(gateway) as made:
        yield made


async def _draw_all(gateway: Gateway) -> None:
    """Ends whatever waits, so that those who wait for it are answered."""
    while True:
        job = await claim(gateway)
        if job is None:
            await asyncio.sleep(0.005)
        else:
            await finish(gateway, job)


@pytest.fixture(scope="module")
def known_jobs(server: Server) -> list[str]:
    """A job that has ended, with its picture."""
    answer = httpx2.post(
        f"{server.url}/v1/images/generations",
        json={"prompt": "x", "size": "64x64"},
        headers={"idempotency-key": "first"},
    )
    assert answer.status_code == 200, answer.text
    return [answer.headers["x-job-id"]]


# Made for its document only; nothing of it is opened.
# What waits for a picture is tried in test_openai_document.py, where somebody draws.
schema = schemathesis.openapi.from_dict(
    create_app(make_gateway(Path("nowhere"))).openapi()
).exclude(path_regex="^/v1/images")


def _try(case: Any, server: Server, known_jobs: list[str]) -> None:
    """Half of the calls that name a job name one that is there, unless they would delete it."""
    if "job_id" in (case.path_parameters or {}) and case.method != "DELETE":
        first = str(case.path_parameters["job_id"])[:1]
        if not first or ord(first) % 2:
            case.path_parameters["job_id"] = known_jobs[0]
    response = case.call(base_url=server.url, timeout=20)
    case.validate_response(response, checks=CHECKS)


@schema.parametrize()
@settings(_QUIET, max_examples=60)
def test_the_document_holds(case: Any, server: Server, known_jobs: list[str]) -> None:
    _try(case, server, known_jobs)


@pytest.mark.full
@schema.parametrize()
@settings(_QUIET, max_examples=400)
def test_the_document_holds_at_length(case: Any, server: Server, known_jobs: list[str]) -> None:
    _try(case, server, known_jobs)
