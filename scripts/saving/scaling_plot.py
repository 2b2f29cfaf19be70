"""The figure of a scaling plan: what each policy costs and keeps, and replicas over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion_costs.scaling.planning import Candidate, ScalingPlan
from diffusion_costs.scaling.runs import Moment
from diffusion_costs.scaling.speed import Speed
from saving.figures import figure

_WINNER, _FIXED, _OTHER = "#0072b2", "#d55e00", "#bbbbbb"
"""Of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(
    plan: ScalingPlan, speed: Speed, path: Path, title: str, currency: str, aim: float
) -> None:
    """Writes a PNG. `aim`: the part of requests that are to be in time."""
    with figure(path, title, (9, 11), (1.6, 1, 0.6)) as (money, counts, queue):
        _costs(money, plan, currency, aim)
        _over_time(counts, queue, plan, speed)


def _costs(axes: Any, plan: ScalingPlan, currency: str, aim: float) -> None:
    shown = sorted(plan.candidates, key=lambda one: -one.outcome.month)
    names = [f"{one.outcome.policy}, {one.outcome.purchase}" for one in shown]
    bars = axes.barh(
        range(len(shown)),
        [one.outcome.month for one in shown],
        color=[_colour(one, plan) for one in shown],
        height=0.7,
    )
    labels = [
        f"{100 * (1 - one.outcome.within):.2f} % late{'' if one.outcome.within >= aim else ' ×'}"
        for one in shown
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=8)
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.margins(x=0.15, y=0.02)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{currency} a month; ×: misses the objective")


def _over_time(counts: Any, queue: Any, plan: ScalingPlan, speed: Speed) -> None:
    shown = [(plan.fixed, _FIXED)]
    if plan.winner is not None and plan.winner is not plan.fixed:
        shown.append((plan.winner, _WINNER))
    else:
        near = [one for one in plan.candidates if one is not plan.fixed]
        shown.append((max(near, key=lambda one: one.outcome.within), _WINNER))
    for one, colour in shown:
        hours = _hours(one.moments)
        name = f"{one.outcome.policy}, {one.outcome.purchase}"
        counts.step(hours, [at.paid for at in one.moments], color=colour, where="post", label=name)
        queue.plot(hours, [at.waiting for at in one.moments], color=colour, linewidth=1)
    moments = shown[-1][0].moments
    needed = [at.arriving / speed.steps_per_s for at in moments]
    counts.fill_between(
        _hours(moments), needed, color="#dddddd", label="full replicas' worth of what arrives"
    )
    counts.set_ylabel("replicas paid for")
    counts.legend(frameon=False, fontsize=8)
    queue.set_ylabel("requests that wait")
    queue.set_xlabel("hours")


def _hours(moments: Any) -> list[float]:
    first: Moment = moments[0]
    return [(one.time - first.time) / 3600 for one in moments]


def _colour(one: Candidate, plan: ScalingPlan) -> str:
    if one is plan.winner:
        return _WINNER
    return _FIXED if one is plan.fixed else _OTHER
