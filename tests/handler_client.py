"""Calls a handler the way TorchServe does, with TorchServe's own context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from diffusion_handler import DiffusionHandler

METRICS = """
model_metrics:
  counter:
    - {name: unused, unit: count, dimensions: [model]}
"""


class Client:
    """Calls a handler the way TorchServe's `Service.predict` does, batch by batch."""

    def __init__(self, handler: DiffusionHandler, context: Context) -> None:
        self.handler = handler
        self.context = context

    def batch(self, *rows: Any, headers: list[dict[str, str]] | None = None) -> list[Any]:
        """(status, content type, body) for each row; a dict is a JSON body."""
        rows_in = [{"body": row} if isinstance(row, (dict, bytes, list)) else row for row in rows]
        rows_in = [row.fields if isinstance(row, Form) else row for row in rows_in]
        self.context.request_ids = {index: str(index) for index in range(len(rows))}
        self.context.request_processor = [
            RequestProcessor(dict(header)) for header in headers or [{} for _ in rows]
        ]
        bodies = self.handler.handle(rows_in, self.context)
        assert len(bodies) == len(rows)
        return [
            (
                self.context.get_response_status(index)[0],
                self.context.get_response_content_type(index),
                json.loads(body) if b"{" in body[:1] else body,
            )
            for index, body in enumerate(bodies)
        ]

    def one(self, row: Any, **headers: str) -> Any:
        return self.batch(row, headers=[headers])[0]


class Form:
    """Fields of a form: TorchServe hands each over as bytes."""

    def __init__(self, **fields: str) -> None:
        self.fields = {name: value.encode() for name, value in fields.items()}


class Raw(Form):
    """A row exactly as given."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields


def _metrics(folder: Path) -> MetricsCacheYamlImpl:
    """TorchServe's own cache, which writes each value to the worker's standard output."""
    path = folder.parent / "metrics.yaml"
    path.write_text(METRICS)
    cache = MetricsCacheYamlImpl(str(path))
    cache.initialize_cache()
    return cache


def open_client(folder: Path) -> Client:
    context = Context("tiny", str(folder), {}, 8, None, "0.12.0", metrics=_metrics(folder))
    handler = DiffusionHandler()
    handler.initialize(context)
    return Client(handler, context)
