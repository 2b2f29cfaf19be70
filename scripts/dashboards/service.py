"""What clients meet: latency, errors, waiting, beside the targets that the service has."""

from __future__ import annotations

from dashboards import queueing, reliability
from dashboards.panels import Board, Kind, Levels, Panel, Row, Unit, query
from dashboards.targets import AVAILABLE, BUDGET, ERRORS, GATEWAY, GPU, MODELS, P99, QUEUE


def _targets() -> Row:
    good = f'diffusion_gateway_availability_events_total{{outcome="good", {GATEWAY}}}'
    events = f"diffusion_gateway_availability_events_total{{{GATEWAY}}}"
    return Row(
        "Against the targets",
        (
            _figure(
                "99th percentile of latency",
                f"max(model:diffusion_latency_seconds:p99_rate5m{{{GATEWAY}}})",
                Unit.SECONDS,
                "From submission to end, over five minutes; of several models the slowest. "
                "Target: below 30 s; alert: above 60 s.",
                P99,
            ),
            _figure(
                "Failed jobs",
                f"max(model:diffusion_errors:ratio_rate5m{{{GATEWAY}}})",
                Unit.RATIO,
                "Of the jobs that ended within five minutes; of several models the worst. "
                "Target: below 1 %; alert: above 5 %.",
                ERRORS,
                decimals=2,
            ),
            _figure(
                "Waiting, a worker",
                "diffusion:queue_jobs_per_worker:ratio",
                Unit.COUNT,
                "Jobs in the queue over workers that report. Target: below 10.",
                QUEUE,
                decimals=1,
            ),
            _figure(
                "GPU use",
                "avg(gpu:gpu_utilization_percent:avg5m)",
                Unit.PERCENT,
                "Mean of all GPUs over five minutes. Target: 70 to 85 %; alert: below 50 % or "
                "above 95 %.",
                GPU,
            ),
            _figure(
                "Availability",
                f"""(sum(increase({good}[$__range])) or vector(0))
                / (sum(increase({events}[$__range])) > 0)""",
                Unit.RATIO,
                "Good API calls and jobs over all, in the time shown. Objective: 99.9 %.",
                AVAILABLE,
                decimals=2,
            ),
            _figure(
                "Error budget left",
                "min(source:diffusion_error_budget:left_ratio)",
                Unit.RATIO,
                "Of the errors that the objective allows in 30 days; of API calls and jobs the "
                "smaller. Below 0 the objective is missed.",
                BUDGET,
            ),
        ),
    )


def _figure(
    title: str, expr: str, unit: Unit, help_text: str, levels: Levels, decimals: int | None = None
) -> Panel:
    return Panel(
        title,
        (query(expr),),
        unit,
        help_text,
        kind=Kind.STAT,
        levels=levels,
        width=4,
        height=4,
        decimals=decimals,
    )


def _traffic() -> Row:
    return Row(
        "Traffic and latency",
        (
            Panel(
                "Jobs that end",
                (
                    query(
                        f"""sum by (model, status) (
                            rate(diffusion_requests_total{{model!="", {GATEWAY}}}[1m]))""",
                        "{{model}}, {{status}}",
                    ),
                ),
                Unit.PER_SECOND,
                "Over one minute, by model and how they ended.",
            ),
            Panel(
                "Latency",
                tuple(
                    query(
                        f"model:diffusion_latency_seconds:{share}_rate5m{{{GATEWAY}}}",
                        f"{{{{model}}}}, {name}",
                    )
                    for share, name in (
                        ("p50", "median"),
                        ("p95", "95th percentile"),
                        ("p99", "99th percentile"),
                    )
                ),
                Unit.SECONDS,
                "From submission to end, over five minutes. Target for the 99th percentile: below "
                "30 s; alert: above 60 s.",
                levels=P99,
            ),
            Panel(
                "Failed jobs",
                (query(f"model:diffusion_errors:ratio_rate5m{{{GATEWAY}}}", "{{model}}"),),
                Unit.RATIO,
                "Of the jobs that ended within five minutes. Target: below 1 %; alert: above 5 %.",
                levels=ERRORS,
                ceiling=0.06,
            ),
            Panel(
                "Mean generation time",
                (
                    query(
                        f"model:diffusion_generation_seconds:mean_rate5m{{{GATEWAY}}}", "{{model}}"
                    ),
                ),
                Unit.SECONDS,
                "From a worker's taking a job to its end, cached pictures left out.",
            ),
            Panel(
                "Where the time goes",
                (
                    query(
                        """avg by (job, phase) (model:diffusion_phase_seconds:mean_rate5m{
                            phase!="whole", model=~"$model"})""",
                        "{{job}}: {{phase}}",
                    ),
                ),
                Unit.SECONDS,
                "Mean seconds of a job in each phase, at the gateway and in TorchServe's workers.",
                kind=Kind.STACKED,
            ),
            Panel(
                "All latencies",
                (
                    query(
                        f"""sum by (le) (increase(
                            diffusion_gateway_phase_duration_seconds_bucket{{phase="whole",
                            {GATEWAY}}}[$__rate_interval]))""",
                        "{{le}}",
                    ),
                ),
                Unit.SECONDS,
                "How many jobs took how long: a row for each bucket, darker for more jobs.",
                kind=Kind.HISTOGRAM,
            ),
        ),
    )


def board() -> Board:
    """The service as its clients and its operator see it."""
    return Board(
        "diffusion-service",
        "Diffusion: service",
        "Latency, errors, queue and availability beside their targets.",
        (_targets(), _traffic(), queueing.row(), reliability.row()),
        (MODELS,),
    )
