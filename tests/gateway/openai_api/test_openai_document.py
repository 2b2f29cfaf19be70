"""What the reference says of /v1 holds: schemathesis over it, with a fake that draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import settings

from api_rig import Server, make_gateway, serving
from diffusion_gateway.api.app import create_app
from openai_rig import working
from schema_rig import CHECKS, PATIENT

_UNBOUNDED: dict[str, Any] = {
    "requests_per_second_per_tenant": 1e6,
    "request_burst_per_tenant": 10**6,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    gateway = make_gateway(tmp_path_factory.mktemp("gateway"), **_UNBOUNDED)
    with serving(gateway) as made, working(made):
        yield made


# Made for its document only; nothing of it is opened.
schema = schemathesis.openapi.from_dict(create_app(make_gateway(Path("nowhere"))).openapi())


@schema.include(path_regex="^/v1/").parametrize()
@settings(**PATIENT, max_examples=80)
def test_the_document_of_openais_api_holds(case: Any, server: Server) -> None:
    if isinstance(case.body, dict):
        # Few would guess the model's name.
        case.body = {**case.body, "model": "emoji"} if "model" in case.body else case.body
    case.validate_response(case.call(base_url=server.url, timeout=20), checks=CHECKS)
