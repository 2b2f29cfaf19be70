"""What `make tune` leaves behind: a model config, and a record of how it was chosen."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from diffusion_costs.documents import write_json
from diffusion_costs.tuning.configurations import Configuration
from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.search import Search
from tuning.checking import Check
from tuning.served import merged


def write_config(
    path: Path, document: dict[str, Any], configuration: Configuration, objective_s: float
) -> None:
    """The model's config with the configuration's serving keys."""
    lines = [
        f"# Serving keys chosen by make tune for a 99th percentile of {objective_s:g} s:",
        f"# {configuration.name}.",
    ]
    if configuration.mode == "continuous" and configuration.workers > 1:
        lines.append(
            f"# {configuration.workers} registrations, which make scale"
            f" WORKERS={configuration.workers} adds: a continuous one has one worker."
        )
    text = yaml.safe_dump(merged(document, configuration.keys()), sort_keys=False)
    path.write_text("\n".join(lines) + "\n" + text, encoding="utf-8")


def write_record(
    path: Path, found: Search, profile: ServiceProfile, rate: float | None, check: Check | None
) -> None:
    """Every candidate and the load run, as JSON."""
    document: dict[str, Any] = {
        "objective_p99_s": found.objective_s,
        "rate": rate,
        "measured": profile.measured,
        "conditions": profile.conditions,
        "candidates": [
            {
                **asdict(one.configuration),
                "throughput": one.throughput,
                "busy": one.busy,
                "median_s": one.median,
                "p99_s": one.p99,
                "p99_range_s": one.p99_range,
                "headroom": one.headroom,
                "why_not": found.why(one),
            }
            for one in found.candidates
        ],
    }
    if check is not None:
        document["check"] = {
            "requests": len(check.seen.latencies),
            "seconds": check.seen.seconds,
            "verdicts": [
                {**asdict(one), "error": one.error, "bound": one.bound, "holds": one.holds}
                for one in check.verdicts
            ],
        }
    write_json(path, document)
