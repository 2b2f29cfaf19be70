"""All boards, in the order in which they are linked."""

from __future__ import annotations

from dashboards import cost, engine, gpus, service
from dashboards.panels import Board


def boards() -> tuple[Board, ...]:
    """Service, engine, GPUs, cost."""
    return service.board(), engine.board(), gpus.board(), cost.board()
