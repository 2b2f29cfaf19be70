"""What `make choose-instance` found, for people: the guides' table, fleets, and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from diffusion_costs.fleets.choice import Choice
from diffusion_costs.fleets.planning import Fleet, Offer
from diffusion_costs.fleets.roofline import Held
from diffusion_costs.money import Money
from saving.figures import sheet
from saving.tables import plain_table

_SHOWN = 12


def offer_table(offers: Sequence[Offer], p99: float) -> Table:
    """The guides' table: price an hour, images an hour, cost of 1,000."""
    table = plain_table(
        f"Machines, each at the most it carries with 99 % within {p99:g} s",
        ["machine", "figures"],
        ["an hour", "spot", "images/h", "1,000", "on spot", "alone, s"],
        "1,000: images, and what they cost on spot; estimate: roofline of a datasheet, not"
        " validated on that machine",
    )
    for one in _fastest_first(offers):
        known = bool(one.speed.rate)
        table.add_row(
            one.name,
            ("estimate" if one.speed.estimate else "measured") if one.speed.p99 else "none",
            _money(one.on_demand),
            _money(one.spot),
            f"{one.images_per_hour:,.0f}" if known else "",
            _money(one.per_thousand(one.on_demand)),
            _money(one.per_thousand(one.spot)),
            f"{one.speed.p99:.3g}" if one.speed.p99 else "",
        )
    return table


def offer_notes(offers: Sequence[Offer]) -> Iterator[str]:
    """Where each machine that carries something is, and how its speed was found, a line each."""
    for one in _fastest_first(offers):
        if one.speed.rate:
            region = f" ({one.machine.region})" if one.machine.region else ""
            yield f"{one.name}{region}: {one.speed.note}"


def fleet_table(choice: Choice, rate: float, hours: float) -> Table:
    """Fleets, the cheapest first."""
    table = plain_table(
        f"Fleets for {rate:.4g} requests a second",
        ["", "fleet", "figures"],
        ["needed", "short", "a month", "1,000 images"],
        "short: the part of the time in which fewer than needed are there",
    )
    for place, one in enumerate(choice.fleets[:_SHOWN], 1):
        table.add_row(
            str(place),
            one.name,
            "estimate" if _estimated(one) else "measured",
            str(one.needed),
            f"{one.short:.2%}",
            _money(one.monthly),
            _money(one.per_thousand(rate, hours)),
            style="bold" if one is choice.winner else None,
        )
    return table


def reasons(choice: Choice) -> Iterator[str]:
    """What speaks for or against each fleet that is shown, a line each."""
    marks = {id(choice.winner): "cheapest", id(choice.runner_up): "runner-up"}
    for place, one in enumerate(choice.fleets[:_SHOWN], 1):
        told = [marks.get(id(one), ""), choice.reason(one)]
        yield f"{place}. {one.name}: {': '.join(filter(None, told))}"


def roofline_table(held: Sequence[Held]) -> Table:
    """The roofline of each part against its measured time on this machine."""
    figures = ["roofline, ms", "measured, ms", "attained"]
    table = plain_table("The roofline against this machine", ["part"], figures)
    for one in held:
        table.add_row(
            one.part,
            f"{1000 * one.roofline_s:.2f}",
            f"{1000 * one.measured_s:.2f}",
            f"{one.attained:.0%}",
        )
    return table


def plot(choice: Choice, path: Path, title: str) -> None:
    """Writes a PNG: what each fleet costs a month, the budget, and cost against speed."""
    with sheet(path, title, (12, 4.2), (1, 2)) as (_, ((left, right),)):
        _draw_fleets(left, choice)
        _draw_offers(right, choice)


def _draw_fleets(axes: Any, choice: Choice) -> None:
    shown = choice.fleets[:_SHOWN]
    places = range(len(shown) - 1, -1, -1)
    colours = [_colour(choice, one) for one in shown]
    hatches = ["//" if _estimated(one) else "" for one in shown]
    bars = axes.barh(places, [float(one.monthly.amount) for one in shown], color=colours)
    for bar, hatch in zip(bars, hatches, strict=True):
        bar.set_hatch(hatch)
    axes.set_yticks(list(places), [one.name for one in shown], fontsize=8)
    if choice.budget is not None:
        axes.axvline(float(choice.budget.amount), color="black", linestyle="--", linewidth=0.8)
    axes.set(xlabel=f"{_currency(choice)} a month")
    axes.set_title("green: chosen; grey: not to be had; hatched: estimates", fontsize=9)


def _draw_offers(axes: Any, choice: Choice) -> None:
    for one in choice.offers:
        face = "none" if one.speed.estimate else "#0072b2"
        for price, marker in ((one.on_demand, "o"), (one.spot, "s")):
            cost = one.per_thousand(price)
            if cost is not None:
                place = (one.images_per_hour, float(cost.amount))
                axes.scatter(*place, marker=marker, facecolors=face, edgecolors="#0072b2")
                axes.annotate(one.name, place, fontsize=7)
    axes.set(xlabel="images an hour", ylabel=f"{_currency(choice)} for 1,000 images")
    if any(one.speed.rate for one in choice.offers):
        axes.set(xscale="log", yscale="log")
    axes.set_title("circles: on demand; squares: spot; hollow: estimates", fontsize=9)


def _currency(choice: Choice) -> str:
    return choice.fleets[0].monthly.currency if choice.fleets else ""


def _fastest_first(offers: Sequence[Offer]) -> list[Offer]:
    return sorted(offers, key=lambda one: -one.speed.rate)


def _estimated(fleet: Fleet) -> bool:
    return any(one.speed.estimate for one in fleet.offers)


def _colour(choice: Choice, one: Fleet) -> str:
    if one is choice.winner:
        return "#009e73"
    return "#bbbbbb" if one.reason else "#0072b2"


def _money(amount: Money | None) -> str:
    if amount is None:
        return ""
    # A thousand small pictures may cost less than a cent.
    return f"{amount.amount:,.2f}" if amount.amount >= 1 else f"{amount.amount:.4f}"
