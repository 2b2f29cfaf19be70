"""What workers do: steps, batches, phases, memory, and the hosts they run on."""

from __future__ import annotations

from dashboards.batches import batches, devices
from dashboards.machines import hosts, workers
from dashboards.panels import Board, Kind, Panel, Row, Unit, query
from dashboards.targets import ENGINE, MODELS, rate


def _throughput() -> Row:
    return Row(
        "Throughput",
        (
            Panel(
                "Denoising steps",
                (query(rate("diffusion_steps_total"), "{{model}}"),),
                Unit.PER_SECOND,
                "Each request's steps counted for itself: a call for four requests is four.",
            ),
            Panel(
                "Pictures",
                (query(rate("diffusion_images_total"), "{{model}}"),),
                Unit.PER_SECOND,
                "Drawn for requests that were answered with them.",
            ),
            Panel(
                "Requests",
                (
                    query(
                        rate("diffusion_requests_total", "model, status"), "{{model}}, {{status}}"
                    ),
                ),
                Unit.PER_SECOND,
                "Answered by workers, by HTTP status; 499: the client had gone.",
            ),
        ),
    )


def _latency() -> Row:
    generation = "diffusion_generation_duration_seconds"
    phase = "diffusion_phase_duration_seconds"
    return Row(
        "Latency",
        (
            Panel(
                "Latency against steps",
                (
                    query(
                        f"""sum by (model, steps) (increase({generation}_sum{{{ENGINE}}}[$__range]))
                        / (sum by (model, steps)
                            (increase({generation}_count{{{ENGINE}}}[$__range])) > 0)""",
                        "{{model}}, {{steps}} steps",
                    ),
                ),
                Unit.SECONDS,
                "Mean time in the worker by number of steps, over the time shown.",
                kind=Kind.BARS,
            ),
            Panel(
                "Latency",
                tuple(
                    query(
                        f"""histogram_quantile({share}, sum by (le, model) (
                            rate({generation}_bucket{{{ENGINE}}}[$__rate_interval])))""",
                        f"{{{{model}}}}, {name}",
                    )
                    for share, name in ((0.5, "median"), (0.99, "99th percentile"))
                ),
                Unit.SECONDS,
                "Whole time of a request in the worker.",
            ),
            Panel(
                "Where the time goes",
                (
                    query(
                        f"""sum by (phase) (
                            rate({phase}_sum{{phase!="whole", {ENGINE}}}[$__rate_interval]))
                        / (sum by (phase) (rate({phase}_count{{phase!="whole", {ENGINE}}}
                            [$__rate_interval])) > 0)""",
                        "{{phase}}",
                    ),
                ),
                Unit.SECONDS,
                "Mean seconds of a request in each phase.",
                kind=Kind.STACKED,
            ),
            Panel(
                "A step's time",
                (
                    query(
                        f"""sum by (model) (
                            rate({phase}_sum{{phase="denoising", {ENGINE}}}[$__rate_interval]))
                        / ({rate("diffusion_steps_total")} > 0)""",
                        "{{model}}",
                    ),
                ),
                Unit.SECONDS,
                "What a step of one request takes, its wait for shared calls included; it grows "
                "with the requests that share a call, and throughput should grow faster.",
            ),
            Panel(
                "A full call's time",
                (
                    query(
                        f"max by (model, shape) (diffusion_full_call_seconds{{{ENGINE}}})",
                        "{{model}}, {{shape}}",
                    ),
                ),
                Unit.SECONDS,
                "t(b) at the cap, as the worker measured it when it started, by picture size.",
                kind=Kind.BARS,
            ),
            Panel(
                "Latency, all of it",
                (
                    query(
                        f"""sum by (le) (
                            increase({generation}_bucket{{{ENGINE}}}[$__rate_interval]))""",
                        "{{le}}",
                    ),
                ),
                Unit.SECONDS,
                "How many requests took how long: a row for each bucket, darker for more.",
                kind=Kind.HISTOGRAM,
            ),
        ),
    )


def board() -> Board:
    """The engine of each model, and its workers."""
    return Board(
        "diffusion-engine",
        "Diffusion: engine",
        "Steps, batches, phases and memory of the workers, by model.",
        (_throughput(), _latency(), batches(), devices(), workers(), hosts()),
        (MODELS,),
    )
