"""What pictures cost, who pays for it, and what nobody used."""

from __future__ import annotations

from dashboards.panels import Board, Kind, Panel, Row, Unit, query
from dashboards.targets import BUDGETS, GATEWAY, GPU_BUSY, MODELS, P99

_HELD = 'diffusion_gateway_held_cost_total{job="gateway"}'
_COST = "diffusion_gateway_cost_total"
_COMPLETED = 'diffusion_requests_total{status="completed", job="gateway"}'
_IMAGES = 'diffusion_gateway_images_total{job="gateway"}'
_USED_SECONDS = 'diffusion_gateway_charged_device_seconds_total{job="gateway"}'
_WINDOW = "15m"
"""Device time is charged when a job ends, so that shorter windows would swing."""


def _an_hour(metric: str, by: str) -> str:
    return f"3600 * sum by ({by}) (rate({metric}[{_WINDOW}]))"


def _held_for(what: str) -> str:
    """All that machines cost in the time shown, over all that was had for it: machines belong to
    no model, so neither side of it may be one model's."""
    return f"""sum by (currency) (increase({_HELD}[$__range]))
        / on () group_left () (sum(increase({what}[$__range])) > 0)"""


def _figures() -> Row:
    def figure(title: str, expr: str, help_text: str, unit: Unit = Unit.MONEY) -> Panel:
        legend = "{{currency}}" if unit is Unit.MONEY else ""
        return Panel(
            title, (query(expr, legend),), unit, help_text, kind=Kind.STAT, width=4, height=4
        )

    held = f"sum by (currency) (increase({_HELD}[$__range]))"
    attributed = f'sum by (currency) (increase({_COST}{{job="gateway"}}[$__range]))'
    return Row(
        "In the time shown",
        (
            figure(
                "An hour",
                _an_hour(_HELD, "currency"),
                f"What machines cost an hour, as over the last {_WINDOW}.",
            ),
            figure(
                "A request",
                _held_for(_COMPLETED),
                "All that machines cost, idle time too, over the completed jobs of all models.",
            ),
            figure(
                "A thousand pictures",
                f"1000 * {_held_for(_IMAGES)}",
                "All that machines cost, idle time too, over the pictures of all models.",
            ),
            figure(
                "An active device hour",
                f"3600 * {_held_for(_USED_SECONDS)}",
                "All that machines cost over the hours in which models ran on them for somebody.",
            ),
            figure(
                "Idle",
                f"1 - ({attributed} or 0 * {held}) / ({held} > 0)",
                "Share of the machines' cost that no request used.",
                Unit.RATIO,
            ),
            figure(
                "Age of the prices",
                'time() - max(diffusion_gateway_prices_as_of_timestamp_seconds{job="gateway"})',
                "Since the price table was last looked after.",
                Unit.SECONDS,
            ),
        ),
    )


def _shares() -> Row:
    held = _an_hour(_HELD, "currency")
    attributed = _an_hour(f'{_COST}{{job="gateway"}}', "currency")
    return Row(
        "Who pays, an hour",
        (
            Panel(
                "By use",
                (
                    query(
                        _an_hour(f'{_COST}{{job="gateway"}}', "bucket, currency"),
                        "{{bucket}}, {{currency}}",
                    ),
                    query(f"{held} - ({attributed} or 0 * {held})", "idle, {{currency}}"),
                ),
                Unit.MONEY,
                "Used by pictures that were handed out; cancelled, failed, repeated, lost; and "
                "idle, which no request used. Together they are what machines cost.",
                kind=Kind.STACKED,
            ),
            Panel(
                "By model",
                (
                    query(
                        _an_hour(f"{_COST}{{{GATEWAY}}}", "model, currency"),
                        "{{model}}, {{currency}}",
                    ),
                ),
                Unit.MONEY,
                "Device time that requests for each model used.",
                kind=Kind.STACKED,
            ),
            Panel(
                "By tenant",
                (
                    query(
                        _an_hour(f"{_COST}{{{GATEWAY}}}", "tenant, currency"),
                        "{{tenant}}, {{currency}}",
                    ),
                ),
                Unit.MONEY,
                "Configured tenants; _other are all that are not, _service what nobody asked for.",
                kind=Kind.STACKED,
            ),
            Panel(
                "Day, week, month",
                tuple(
                    query(
                        f"sum by (currency) (tags:diffusion_held_cost:increase{days})",
                        f"{name}, {{{{currency}}}}",
                    )
                    for days, name in (("1d", "1 day"), ("7d", "7 days"), ("30d", "30 days"))
                ),
                Unit.MONEY,
                "What machines cost, used or not, up to now.",
                kind=Kind.BARS,
            ),
            Panel(
                "By tag",
                (
                    query(
                        _an_hour(
                            f"{_COST}{{{GATEWAY}}}", "environment, component, model_id, currency"
                        ),
                        "{{environment}}, {{component}}, {{model_id}}, {{currency}}",
                    ),
                ),
                Unit.MONEY,
                "Environment, component and model-id; an empty tag is missing.",
                kind=Kind.STACKED,
            ),
            Panel(
                "By purchase",
                (
                    query(
                        _an_hour(_HELD, "machine, purchase, currency"),
                        "{{machine}}, {{purchase}}, {{currency}}",
                    ),
                ),
                Unit.MONEY,
                "Machines while they answered, used or not: on-demand, spot, reserved.",
                kind=Kind.STACKED,
            ),
        ),
    )


def _budgets() -> Row:
    spent = "max by (budget, tenant) (diffusion_gateway_budget_spent)"
    limit = "max by (budget, tenant) (diffusion_gateway_budget_limit)"
    elapsed = "max by (budget) (diffusion_gateway_budget_elapsed_ratio)"
    return Row(
        "Budgets",
        (
            Panel(
                "Spent",
                (query(f"{spent} / {limit}", "{{budget}} {{tenant}}"),),
                Unit.RATIO,
                "Of the period under way. Alerts: 50, 75, 100 %.",
                kind=Kind.BARS,
                levels=BUDGETS,
                ceiling=1.0,
            ),
            Panel(
                "Foreseen at the period's end",
                (
                    query(
                        f"""{spent} / {limit}
                        / on (budget) group_left () ({elapsed} > 0)""",
                        "{{budget}} {{tenant}}",
                    ),
                ),
                Unit.RATIO,
                "What is spent at the period's end if it goes on as so far.",
                kind=Kind.BARS,
                levels=BUDGETS,
                ceiling=1.0,
            ),
            Panel(
                "Refused",
                (
                    query(
                        """sum by (budget) (
                            increase(diffusion_gateway_budget_refusals_total[$__rate_interval]))""",
                        "{{budget}}",
                    ),
                ),
                Unit.COUNT,
                "Submissions of tenants that have reached their hard limit.",
            ),
        ),
    )


def _beside() -> Row:
    return Row(
        "What is had for it",
        (
            Panel(
                "Pictures",
                (query(f"model:diffusion_images:rate5m{{{GATEWAY}}}", "{{model}}"),),
                Unit.PER_SECOND,
                "Handed out, cached ones too.",
                width=6,
            ),
            Panel(
                "Latency",
                (query(f"model:diffusion_latency_seconds:p99_rate5m{{{GATEWAY}}}", "{{model}}"),),
                Unit.SECONDS,
                "99th percentile, from submission to end.",
                levels=P99,
                width=6,
            ),
            Panel(
                "Device use",
                (query('model:diffusion_device_busy:ratio_rate5m{model=~"$model"}', "{{model}}"),),
                Unit.RATIO,
                "Share of the time that workers hold their device in which models run. Target: 70 "
                "to 85 %.",
                levels=GPU_BUSY,
                ceiling=1.0,
                width=6,
            ),
            Panel(
                "A thousand pictures",
                (
                    query(
                        f"""1000 * sum by (currency) (rate({_HELD}[{_WINDOW}]))
                        / on () group_left () (sum(rate({_IMAGES}[{_WINDOW}])) > 0)""",
                        "{{currency}}",
                    ),
                ),
                Unit.MONEY,
                f"Of all models, idle time too, over {_WINDOW}; less as devices are used better.",
                width=6,
            ),
        ),
    )


def board() -> Board:
    """Money, beside what is had for it."""
    return Board(
        "diffusion-cost",
        "Diffusion: cost",
        "What pictures cost by model, tenant and tag, what is idle, and how budgets stand.",
        (_figures(), _shares(), _budgets(), _beside()),
        (MODELS,),
    )
