"""What `make choose-instance` found, for people: the guides' table, fleets, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from diffusion_costs.fleets.choice import Choice
from diffusion_costs.fleets.planning import Fleet, Offer
from diffusion_costs.fleets.roofline import Held
from diffusion_costs.money import Money

_SHOWN = 12


def offer_table(offers: Sequence[Offer], p99: float) -> Table:
    """The guides' table: price an hour, images an hour, cost of 1,000."""
    table = Table(
        title=f"Machines, each at the most it carries with 99 % within {p99:g} s",
        caption="estimate: roofline of a datasheet, not validated on that machine",
    )
    table.add_column("machine")
    table.add_column("region")
    table.add_column("figures")
    for name in ("an hour", "spot", "images/h", "1,000 images", "on spot", "alone, s"):
        table.add_column(name, justify="right")
    table.add_column("found by")
    for one in sorted(offers, key=lambda one: -one.speed.rate):
        known = bool(one.speed.rate)
        table.add_row(
            one.name,
            one.machine.region or "",
            ("estimate" if one.speed.estimate else "measured") if one.speed.p99 else "none",
            _money(one.on_demand),
            _money(one.spot),
            f"{one.images_per_hour:,.0f}" if known else "",
            _money(one.per_thousand(one.on_demand)),
            _money(one.per_thousand(one.spot)),
            f"{one.speed.p99:.3g}" if one.speed.p99 else "",
            one.speed.note,
        )
    return table


def fleet_table(choice: Choice, rate: float, hours: float) -> Table:
    """Fleets, the cheapest first, and what speaks against each."""
    table = Table(title=f"Fleets for {rate:.4g} requests a second")
    table.add_column("fleet")
    table.add_column("figures")
    for name in ("needed", "short", "a month", "1,000 images"):
        table.add_column(name, justify="right")
    table.add_column("")
    marks = {id(choice.winner): "cheapest", id(choice.runner_up): "runner-up"}
    for one in choice.fleets[:_SHOWN]:
        mark, reason = marks.get(id(one)), choice.reason(one)
        told = f"{mark}: {reason}" if mark and reason else mark or reason
        table.add_row(
            one.name,
            "estimate" if _estimated(one) else "measured",
            str(one.needed),
            f"{one.short:.2%}",
            _money(one.monthly),
            _money(one.per_thousand(rate, hours)),
            told,
        )
    return table


def roofline_table(held: Sequence[Held]) -> Table:
    """The roofline of each part against its measured time on this machine."""
    table = Table(title="The roofline against this machine")
    table.add_column("part")
    for name in ("roofline, ms", "measured, ms", "attained"):
        table.add_column(name, justify="right")
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
    # Here and not above: only this needs the `report` extra.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
    shown = choice.fleets[:_SHOWN]
    places = range(len(shown) - 1, -1, -1)
    colours = [_colour(choice, one) for one in shown]
    hatches = ["//" if _estimated(one) else "" for one in shown]
    bars = left.barh(places, [float(one.monthly.amount) for one in shown], color=colours)
    for bar, hatch in zip(bars, hatches, strict=True):
        bar.set_hatch(hatch)
    left.set_yticks(list(places), [one.name for one in shown], fontsize=8)
    if choice.budget is not None:
        left.axvline(float(choice.budget.amount), color="black", linestyle="--", linewidth=0.8)
    currency = shown[0].monthly.currency if shown else ""
    left.set(xlabel=f"{currency} a month")
    left.set_title("green: chosen; grey: not to be had; hatched: estimates", fontsize=9)
    for one in choice.offers:
        for price, marker in ((one.on_demand, "o"), (one.spot, "s")):
            cost = one.per_thousand(price)
            if cost is not None:
                face = "none" if one.speed.estimate else "#0072b2"
                right.scatter(
                    [one.images_per_hour],
                    [float(cost.amount)],
                    marker=marker,
                    facecolors=face,
                    edgecolors="#0072b2",
                )
                right.annotate(one.name, (one.images_per_hour, float(cost.amount)), fontsize=7)
    right.set(xlabel="images an hour", ylabel=f"{currency} for 1,000 images")
    if any(one.speed.rate for one in choice.offers):
        right.set(xscale="log", yscale="log")
    right.set_title("circles: on demand; squares: spot; hollow: estimates", fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


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
