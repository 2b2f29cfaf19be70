"""Run by trial.py in a process of its own: one picture through TorchServe's own loader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_OURS = ("diffusion_handler", "diffusion_engine", "diffusion_core")


def main() -> None:
    """Reads an order from stdin; writes the answer's content type and size as the last line."""
    order = json.load(sys.stdin)
    service = _load(order)
    status, content_type, body = _ask(service, order["request"])
    if status != 200 or not content_type.startswith("image/"):
        sys.exit(f"the handler answered {status}: {bytes(body[:500]).decode(errors='replace')}")
    _require_own_code(Path(order["folder"]))
    print(json.dumps({"content_type": content_type, "bytes": len(body)}))


def _load(order: dict[str, Any]) -> Any:
    import ts
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    metrics = MetricsCacheYamlImpl(
        config_file_path=str(Path(ts.__file__).parent / "configs" / "metrics.yaml")
    )
    metrics.initialize_cache()
    loader = ModelLoaderFactory.get_model_loader()
    return loader.load(
        "trial",
        order["folder"],
        order["handler"],
        None,
        order["batch_size"],
        metrics_cache=metrics,
    )


def _ask(service: Any, request: dict[str, Any]) -> tuple[int, str, bytes]:
    """Status, content type and body; a continuous handler is called until it has answered."""
    from ts.context import RequestProcessor

    context = service.context
    row = {"body": request}
    while True:
        context.request_ids = {0: "trial"}
        context.request_processor = [RequestProcessor({"accept": "image/*"})]
        context.metrics.request_ids = context.request_ids
        answers = service._entry_point([row], context)
        if 0 in context.request_ids:
            break
    status, _ = context.get_response_status(0)
    return status or 200, context.get_response_content_type(0) or "", answers[0]


def _require_own_code(folder: Path) -> None:
    """An archive that borrows a module from the machine it was built on would fail on another."""
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if name.partition(".")[0] in _OURS and place and not Path(place).is_relative_to(folder):
            sys.exit(f"{name} is not in the archive: it was loaded from {place}")


if __name__ == "__main__":
    main()
