"""Workers and the hosts that they run on."""

from __future__ import annotations

from dashboards.panels import Kind, Panel, Row, Unit, query
from dashboards.targets import HEARTBEAT, MEMORY, WORKER, of_living_workers, of_workers


def workers() -> Row:
    """How workers start, report and grow."""
    return Row(
        "Workers",
        (
            Panel(
                "Time to READY",
                (
                    query(
                        of_living_workers("diffusion_worker_ready_seconds"),
                        WORKER,
                    ),
                ),
                Unit.SECONDS,
                "From the start of each worker's process, at its last start.",
                kind=Kind.BARS,
            ),
            Panel(
                "Silence",
                (
                    query(
                        f"time() - {of_workers(HEARTBEAT)}",
                        WORKER,
                    ),
                ),
                Unit.SECONDS,
                "Since each worker's last report, which comes every few seconds.",
            ),
            Panel(
                "Memory of workers",
                (
                    query(
                        of_living_workers("diffusion_worker_memory_bytes"),
                        WORKER,
                    ),
                ),
                Unit.BYTES,
                "Resident memory of each worker's process.",
            ),
        ),
    )


def hosts() -> Row:
    """CPU, memory and swap of the machines."""

    def of_hosts(metric: str) -> str:
        return f'max by (instance) ({metric}{{job="torchserve"}})'

    return Row(
        "Hosts",
        (
            Panel(
                "CPU",
                (query(of_hosts("host_cpu_utilization_percent"), "{{instance}}"),),
                Unit.PERCENT,
                "Of all cores.",
                ceiling=100.0,
                width=6,
            ),
            Panel(
                "Memory",
                (query("instance:host_memory_used:ratio", "{{instance}}"),),
                Unit.RATIO,
                "Share in use. Target: below 90 %; alert: above 95 %.",
                levels=MEMORY,
                ceiling=1.0,
                width=6,
            ),
            Panel(
                "Swap",
                (query(of_hosts("host_swap_used_bytes"), "{{instance}}"),),
                Unit.BYTES,
                "In use. A host that serves models should use none.",
                width=6,
            ),
            Panel(
                "Out-of-memory kills",
                (
                    query(
                        """max by (instance) (
                            increase(host_oom_kills_total{job="torchserve"}[$__rate_interval]))""",
                        "{{instance}}",
                    ),
                ),
                Unit.COUNT,
                "Processes that the kernel killed for lack of memory.",
                width=6,
            ),
        ),
    )
