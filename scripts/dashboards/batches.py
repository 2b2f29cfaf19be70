"""How well denoiser calls are shared, and where device time goes."""

from __future__ import annotations

from dashboards.panels import Kind, Panel, Row, Unit, query
from dashboards.targets import ENGINE, MODEL, WORKER, of_living_workers, rate


def batches() -> Row:
    """Rows and requests of a call, and the work that waits for one."""
    return Row(
        "Batches",
        (
            Panel(
                "Rows a denoiser call",
                (
                    query(
                        f"model:diffusion_denoiser_rows_per_call:ratio_rate5m{{{MODEL}}}",
                        "{{model}}",
                    ),
                    query(
                        f"max by (model) (diffusion_batch_cap_rows{{{ENGINE}}})",
                        "{{model}}, cap",
                    ),
                ),
                Unit.COUNT,
                "Mean rows beside the largest cap; a guided request has two rows an image.",
            ),
            Panel(
                "Requests a denoiser call",
                (query(f"model:diffusion_batch_requests:mean_rate5m{{{MODEL}}}", "{{model}}"),),
                Unit.COUNT,
                "Mean number of requests that shared a call.",
            ),
            Panel(
                "Requests a denoiser call, all of them",
                (
                    query(
                        f"""sum by (le) (
                            increase(diffusion_batch_size_bucket{{{ENGINE}}}[$__rate_interval]))""",
                        "{{le}}",
                    ),
                ),
                Unit.COUNT,
                "How many calls held how many requests, darker for more calls.",
                kind=Kind.HISTOGRAM,
            ),
            Panel(
                "Pending steps",
                (query(f"model:diffusion_pending_steps:sum{{{MODEL}}}", "{{model}}"),),
                Unit.COUNT,
                "Denoising steps that accepted requests still need: the work that waits.",
            ),
            Panel(
                "Requests in flight",
                (
                    query(
                        of_living_workers("diffusion_requests_in_flight"),
                        WORKER,
                    ),
                ),
                Unit.COUNT,
                "Accepted by a worker's engine and not ended.",
            ),
            Panel(
                "Prompt cache",
                (query(f"model:diffusion_prompt_cache_hits:ratio_rate5m{{{MODEL}}}", "{{model}}"),),
                Unit.RATIO,
                "Share of encoder outputs that were found; the usual negative prompt is one.",
                ceiling=1.0,
            ),
        ),
    )


def devices() -> Row:
    """How busy devices are, and with what."""
    return Row(
        "Device time",
        (
            Panel(
                "Busy",
                (query(f"model:diffusion_device_busy:ratio_rate5m{{{MODEL}}}", "{{model}}"),),
                Unit.RATIO,
                "Share of the time that workers hold their device in which models run.",
                ceiling=1.0,
            ),
            Panel(
                "Device seconds by outcome",
                (query(rate("diffusion_device_seconds_total", "outcome"), "{{outcome}}"),),
                Unit.PER_SECOND,
                "Of requests that completed, failed or were cancelled, a second.",
                kind=Kind.STACKED,
            ),
            Panel(
                "Errors by kind",
                (query(rate("diffusion_errors_total", "model, kind"), "{{model}}: {{kind}}"),),
                Unit.PER_SECOND,
                "Requests that ended in an error, by whose it is.",
                kind=Kind.STACKED,
            ),
        ),
    )
