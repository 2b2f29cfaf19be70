"""Submitting a job to the API, and reading a refusal."""

from __future__ import annotations

from typing import Any

import httpx2

from diffusion_gateway.api.schemas import JobDocument, Problem


async def submit(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/generate", json={"prompt": "red heart", **fields})
    assert answer.status_code == 202, answer.text
    return JobDocument.model_validate(answer.json()).model_dump(mode="json")


def problem(answer: httpx2.Response, status: int, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = Problem.model_validate(answer.json())
    assert document.field == field
    return answer.json()
