"""What goes wrong, and what is tried again."""

from __future__ import annotations

from dashboards.panels import Kind, Panel, Row, Unit, query
from dashboards.targets import BURN, ENGINE, GATEWAY


def row() -> Row:
    """Errors, attempts, restarts, endpoints, the cache."""
    return Row(
        "Reliability",
        (
            Panel(
                "Errors by kind",
                (
                    query(
                        f"""sum by (source, kind) (
                            rate(diffusion_gateway_errors_total{{{GATEWAY}}}[$__rate_interval]))""",
                        "{{source}}: {{kind}}",
                    ),
                ),
                Unit.PER_SECOND,
                "API calls refused and jobs that failed or were cancelled, a second.",
                kind=Kind.STACKED,
            ),
            Panel(
                "Attempts",
                (
                    query(
                        f"""sum by (outcome) (
                            rate(diffusion_gateway_attempts_total{{{GATEWAY}}}[$__rate_interval])
                        )""",
                        "{{outcome}}",
                    ),
                ),
                Unit.PER_SECOND,
                "What became of jobs in workers' hands. Lost and handed back ones are repeated.",
                kind=Kind.STACKED,
            ),
            Panel(
                "Worker starts",
                (
                    query(
                        f"""sum by (model) (
                            increase(diffusion_worker_starts_total{{{ENGINE}}}[$__rate_interval])
                        )""",
                        "{{model}}",
                    ),
                ),
                Unit.COUNT,
                "Workers of model servers that became READY; after a deploy each is a restart.",
            ),
            Panel(
                "Model servers",
                (
                    query(
                        """sum by (endpoint, state) (
                            diffusion_gateway_endpoint{job="gateway"} == 1)""",
                        "{{state}}: {{endpoint}}",
                    ),
                ),
                Unit.COUNT,
                "Gateways that see each endpoint in each state; asleep: all of its models are; "
                "open: the circuit breaker is.",
            ),
            Panel(
                "Cache",
                (
                    query(
                        f"""sum by (model) (rate(diffusion_gateway_cache_lookups_total{{
                            outcome="hit", {GATEWAY}}}[$__rate_interval]))
                        / (sum by (model) (rate(diffusion_gateway_cache_lookups_total{{
                            {GATEWAY}}}[$__rate_interval])) > 0)""",
                        "{{model}}",
                    ),
                ),
                Unit.RATIO,
                "Share of lookups that found a picture; only jobs with a seed are looked up.",
                ceiling=1.0,
            ),
            Panel(
                "Error budget burnt",
                tuple(
                    query(
                        f"""source:diffusion_unavailable:ratio_rate{window}
                        / (1 - scalar(slo:diffusion_availability:objective))""",
                        f"{{{{source}}}}s, {window}",
                    )
                    for window in ("1h", "6h")
                ),
                Unit.COUNT,
                "How many times faster than the objective allows. Alerts: above 14.4 over an hour, "
                "above 6 over six.",
                levels=BURN,
            ),
            Panel(
                "API calls",
                (
                    query(
                        """sum by (status) (
                            rate(diffusion_gateway_http_requests_total{job="gateway"}[1m]))""",
                        "{{status}}",
                    ),
                ),
                Unit.PER_SECOND,
                "Answered, by HTTP status, over one minute.",
            ),
            Panel(
                "Job store",
                (
                    query(
                        'min by (instance) (diffusion_gateway_store_up{job="gateway"})',
                        "{{instance}}",
                    ),
                ),
                Unit.COUNT,
                "1 while the store answers the gateway; without it nothing is accepted.",
                ceiling=1.0,
            ),
            Panel(
                "Webhooks",
                (
                    query(
                        """sum by (outcome) (
                            rate(diffusion_gateway_webhooks_total{job="gateway"}[$__rate_interval])
                        )""",
                        "{{outcome}}",
                    ),
                ),
                Unit.PER_SECOND,
                "Deliveries tried, by what came of them.",
                kind=Kind.STACKED,
            ),
        ),
    )
