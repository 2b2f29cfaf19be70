"""Puts results into docs/benchmarks.md: `python -m benchmarks.report`.

The document's text is written by hand; what stands between `<!-- begin NAME -->` and
`<!-- end NAME -->` is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.goals import rows, spread
from benchmarks.models import ROOT

RESULTS = Path(__file__).parent / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"

Documents = Mapping[str, dict[str, Any]]
"""The result files, by part."""


def read(folder: Path) -> Documents:
    """Every result of a full run in `folder`."""
    found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return {one["part"]: one for one in found if "part" in one}


def write(folder: Path = RESULTS) -> None:
    """Renews the document's tables and plots."""
    documents = read(folder)
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, block in BLOCKS.items():
        text = _replaced(text, name, block(documents))
    DOCUMENT.write_text(text, encoding="utf-8")
    IMAGES.mkdir(exist_ok=True)
    plots.draw({name: one["results"] for name, one in documents.items()}, IMAGES)


def _replaced(text: str, name: str, block: str) -> str:
    """The text with another block between the marks of `name`."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: begin + block + end, text, flags=re.DOTALL)


def goals_table(documents: Documents) -> str:
    """Goals and what was measured."""
    results = {name: one["results"] for name, one in documents.items()}
    lines = ["| figure | goal | measured: median (range) | met |", "|---|---|---|---|"]
    return "\n".join([*lines, *(row.markdown() for row in rows(results))]) + "\n"


def machine_text(documents: Documents) -> str:
    """Where and when, and how long each part took."""
    lines = ["| part | date | seconds | torch threads |", "|---|---|---|---|"]
    for name, one in documents.items():
        threads = one["machine"]["torch_threads"]
        lines.append(f"| `{name}` | {one['date']} | {one['seconds']:.0f} | {threads} |")
    machine = next(iter(documents.values()))["machine"]
    extras = [name for name in ("avx512", "amx_bf16") if machine[name]]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['cores']} cores ({machine['architecture']}, {', '.join(extras)}), "
        f"{machine['memory_gb']} GB, no GPU; Python {machine['python']}, {libraries}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def device_table(documents: Documents) -> str:
    """What the device allows, as each part found it."""
    lines = [
        "| model | part | ms of a denoiser call, by rows | ms of a picture by the bare pipeline, "
        "by batch | best rows, batch |",
        "|---|---|---|---|---|",
    ]
    for part, one in documents.items():
        for model, found in one["calibrations"].items():
            calls = _by_size(found["denoiser_call_seconds_by_rows"], each=False)
            pictures = _by_size(found["pipeline_seconds_by_batch"], each=True)
            best = f"{found['best_rows']}, {found['best_batch']}"
            lines.append(f"| {model} | `{part}` | {calls} | {pictures} | {best} |")
    return "\n".join(lines) + "\n"


def mixes_tables(documents: Documents) -> str:
    """All systems, one table for each model and workload."""
    return "\n".join(
        _mix_table(model, f"{workload}, both servers" if part == "triton" else workload, found)
        for part in ("mixes", "triton", "large")
        if part in documents
        for model in documents[part]["results"].values()
        for workload, found in model["workloads"].items()
    )


def _mix_table(model: dict[str, Any], workload: str, found: dict[str, Any]) -> str:
    counts = sorted(set(found["steps"]))
    lines = [
        f"**{model['model']}, {workload}**: {len(found['steps'])} requests of "
        f"{', '.join(map(str, counts))} steps, {model['in_flight']} connections; best batch "
        f"{model['batch']} requests, {model['rows']} rows a call.",
        "",
        "| system | images/s | median latency, s | client's CPU, ms a request | failed |",
        "|---|---|---|---|---|",
    ]
    for name, figures in found["systems"].items():
        cells = [
            spread(figures["images_a_second"]),
            spread(figures["median_latency"], 2),
            f"{figures['client_cpu_ms_a_request']['median']:.1f}",
            str(figures["failed"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _by_size(seconds: dict[str, float], *, each: bool) -> str:
    return ", ".join(
        f"{size}: {1000 * value / (int(size) if each else 1):.1f}"
        for size, value in seconds.items()
    )


BLOCKS: dict[str, Callable[[Documents], str]] = {
    "goals": goals_table,
    "machine": machine_text,
    "device": device_table,
    "mixes": mixes_tables,
}


if __name__ == "__main__":
    write()
