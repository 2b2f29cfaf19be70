"""The queue: how much waits, for how long, for whom."""

from __future__ import annotations

from dashboards.panels import Kind, Panel, Row, Unit, query
from dashboards.targets import GATEWAY, QUEUE, QUEUE_IN_ALL


def row() -> Row:
    """Waiting jobs, and the room there is for them."""
    return Row(
        "Queue",
        (
            Panel(
                "Waiting jobs by priority",
                (
                    query(
                        f"""max by (model, lane) (
                            diffusion_gateway_queue_jobs{{state="waiting", {GATEWAY}}})""",
                        "{{model}}, {{lane}}",
                    ),
                ),
                Unit.COUNT,
                "By model and lane: returned, urgent, normal, low. Alert: above 50 in all.",
                kind=Kind.STACKED,
                levels=QUEUE_IN_ALL,
            ),
            Panel(
                "Waiting jobs by pool",
                (
                    query(
                        f"max by (model, pool) (diffusion_gateway_pool_queue_jobs{{{GATEWAY}}})",
                        "{{model}}, {{pool}}",
                    ),
                ),
                Unit.COUNT,
                "Jobs that a pool takes as things stand; one that both take counts in both.",
            ),
            Panel(
                "Waiting, a worker",
                (query("diffusion:queue_jobs_per_worker:ratio", "a worker"),),
                Unit.COUNT,
                "Jobs in the queue over workers that report. Target: below 10.",
                levels=QUEUE,
            ),
            Panel(
                "Oldest waiting job",
                (
                    query(
                        f"max by (model) (diffusion_gateway_oldest_waiting_seconds{{{GATEWAY}}})",
                        "{{model}}",
                    ),
                ),
                Unit.SECONDS,
                "Age of the job that has waited longest; nothing where none waits.",
            ),
            Panel(
                "Jobs in hand",
                (query('max by (status) (diffusion_gateway_jobs{job="gateway"})', "{{status}}"),),
                Unit.COUNT,
                "Jobs that have not ended: pending ones wait, processing ones are with a worker.",
            ),
            Panel(
                "Room",
                (
                    query(
                        'max by (pool) (diffusion_gateway_worker_room{job="gateway"})', "{{pool}}"
                    ),
                ),
                Unit.COUNT,
                "Jobs that workers could take now, by pool; every gateway tells the same.",
            ),
        ),
    )
