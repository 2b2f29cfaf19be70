"""GPUs: how busy, how full, how hot."""

from __future__ import annotations

from dashboards.panels import Board, Kind, Panel, Row, Unit, query
from dashboards.targets import GPU, MEMORY

_LEGEND = "{{instance}}, GPU {{gpu_id}}"


def _of_each(metric: str) -> str:
    # Workers that share a GPU report the same reading.
    return f'max by (instance, gpu_id) ({metric}{{job="torchserve"}})'


def board() -> Board:
    """A row for each GPU: a dark stripe is one that idles while others work."""
    return Board(
        "diffusion-gpus",
        "Diffusion: GPUs",
        "Use, memory, temperature and power of each GPU. Empty where there is none.",
        (
            Row(
                "Use",
                (
                    Panel(
                        "Use of each GPU",
                        (query(_of_each("gpu_utilization_percent"), _LEGEND),),
                        Unit.PERCENT,
                        "A row for each GPU: dark idles, bright is busy all the time.",
                        kind=Kind.HEATMAP,
                        width=24,
                        height=10,
                        ceiling=100.0,
                    ),
                    Panel(
                        "Mean use",
                        (query("avg(gpu:gpu_utilization_percent:avg5m)", "all GPUs"),),
                        Unit.PERCENT,
                        "Over five minutes. Target: 70 to 85 %; alert: below 50 % or above 95 %.",
                        levels=GPU,
                        width=12,
                        ceiling=100.0,
                    ),
                    Panel(
                        "Memory bandwidth",
                        (query(_of_each("gpu_memory_bandwidth_percent"), _LEGEND),),
                        Unit.PERCENT,
                        "Share of the time in which memory was read or written.",
                        width=12,
                        ceiling=100.0,
                    ),
                ),
            ),
            Row(
                "Memory, heat, power",
                (
                    Panel(
                        "Memory",
                        (query("gpu:gpu_memory_used:ratio", _LEGEND),),
                        Unit.RATIO,
                        "Share in use. Target: below 90 %; alert: above 95 %.",
                        levels=MEMORY,
                        ceiling=1.0,
                    ),
                    Panel(
                        "Temperature",
                        (query(_of_each("gpu_temperature_celsius"), _LEGEND),),
                        Unit.CELSIUS,
                        "Of each GPU; one that gets too hot slows itself down.",
                        floor=None,
                    ),
                    Panel(
                        "Power",
                        (query(_of_each("gpu_power_watts"), _LEGEND),),
                        Unit.WATTS,
                        "Drawn by each board.",
                        kind=Kind.STACKED,
                    ),
                ),
            ),
        ),
        (),
    )
