"""What `make tune` found, for people: tables and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.search import Candidate, Search, headroom
from diffusion_costs.tuning.simulation import Asked
from diffusion_costs.tuning.verdicts import Verdict
from saving.figures import sheet
from saving.tables import plain_table

KINDS = {
    "fixed": "#999999",
    "dynamic": "#0072b2",
    "adaptive": "#009e73",
    "continuous": "#d55e00",
}
"""The guides' three, and continuous; colours of Okabe and Ito, which colour-blind readers tell."""

_SHOWN = 6

_TRIED_SLOWER = 3
"""Candidates, the nearest to the objective first, that are tried with less traffic."""


def tables(search: Search, rate: float | None) -> Iterator[Table | str]:
    """The best of each kind beside each other, then the winner and those that came after it.

    Each table is followed by a line for each of its rows that says why it was not chosen.
    """
    kinds = [
        next((one for one in search.candidates if one.configuration.kind == kind), None)
        for kind in KINDS
    ]
    best = [one for one in kinds if one is not None]
    for title, shown in (
        ("The best of each kind", best),
        ("The winner and the runners-up", search.candidates[:_SHOWN]),
    ):
        yield _table(title, shown, rate)
        for one in shown:
            yield f"{one.configuration.name}: {search.why(one) or 'the best'}"
        yield ""


def parts_table(profile: ServiceProfile) -> Table:
    """What a picture takes, part by part, with one worker at work and with all."""
    table = plain_table(
        f"Parts of a picture of {profile.shape}, milliseconds",
        [],
        ["workers", "at work", "start", "encode", "decode", "file", "a step by rows"],
        "; ".join(
            f"TorchServe, {one.mode}, {one.workers} workers: {1000 * one.request:.3g} ms a request,"
            f" parts take {one.slowness:.2f} times as long"
            for one in profile.overheads
        ),
    )
    for layout in profile.layouts:
        for busy, sizes in layout.busy.items():
            of = sizes[profile.shape]
            steps = ", ".join(f"{rows}: {1000 * s:.3g}" for rows, s in of.step.seconds.items())
            alone = (f"{1000 * s:.3g}" for s in (of.start, of.encode, of.decode, of.image))
            table.add_row(str(layout.workers), str(busy), *alone, steps)
    return table


def verdict_table(found: Sequence[Verdict]) -> Table:
    """Foreseen and seen, with a verdict for each figure."""
    table = plain_table(
        "Foreseen and seen, the same arrivals",
        ["figure", "unit", "verdict"],
        ["foreseen", "seen", "apart", "bound"],
    )
    for one in found:
        table.add_row(
            one.figure,
            one.unit,
            "holds" if one.holds else "does not hold",
            f"{one.foreseen:.4g}",
            f"{one.seen:.4g}",
            f"{one.error:+.1%}",
            f"{one.bound:.0%}",
        )
    return table


def plot(
    search: Search, path: Path, title: str, checked: tuple[Sequence[float], Sequence[float]] | None
) -> None:
    """Writes a PNG: every candidate's median and 99th percentile; if checked, the latencies.

    Args:
        checked: latencies foreseen and seen, in seconds.
    """
    with sheet(path, title, (11, 4), (1, 2 if checked else 1)) as (_, (panels,)):
        _draw_candidates(panels[0], search)
        if checked:
            _draw_latencies(panels[1], *checked)


def _draw_candidates(axes: Any, search: Search) -> None:
    for kind, colour in KINDS.items():
        mine = [one for one in search.candidates if one.configuration.kind == kind]
        axes.scatter(
            [one.median for one in mine], [one.p99 for one in mine], s=22, color=colour, label=kind
        )
    winner = search.winner
    if winner is not None:
        axes.scatter([winner.median], [winner.p99], s=140, facecolors="none", edgecolors="black")
        axes.annotate(
            winner.configuration.name,
            (winner.median, winner.p99),
            textcoords="offset points",
            xytext=(10, 14),
            fontsize=8,
        )
    axes.axhline(search.objective_s, color="black", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="median latency, s", ylabel="99th percentile, s")
    axes.set_title("every candidate, simulated; dashed: the objective", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_latencies(axes: Any, foreseen: Sequence[float], seen: Sequence[float]) -> None:
    for latencies, label, colour in (
        (foreseen, "foreseen", "#0072b2"),
        (seen, "seen on TorchServe", "#d55e00"),
    ):
        ordered = sorted(latencies)
        shares = [100 * (place + 1) / len(ordered) for place in range(len(ordered))]
        axes.step(ordered, shares, where="post", color=colour, label=label)
    axes.set(xlabel="latency, s", ylabel="% of requests within")
    axes.set_title("the winner under load, the same arrivals", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _table(title: str, shown: Sequence[Candidate], rate: float | None) -> Table:
    table = plain_table(
        title,
        ["kind", "served as"],
        ["img/s", "busy", "median", "p99, s", "carries"],
        "simulated; served as: workers × batch, delay; median and p99 in seconds, in brackets the"
        " least and largest of the draws",
    )
    for one in shown:
        of = one.configuration
        low, high = one.p99_range
        spread = f" ({_seconds(low)}–{_seconds(high)})" if len(one.outcomes) > 1 else ""
        table.add_row(
            of.kind,
            of.served,
            f"{one.throughput:.3g}",
            f"{one.busy:.0%}",
            _seconds(one.median),
            f"{_seconds(one.p99)}{spread}",
            carries(one, rate),
        )
    return table


def _seconds(latency: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{latency:.3g}" if latency < 100 else f"{latency:,.0f}"


def carries(one: Candidate, rate: float | None) -> str:
    """The most of such traffic within the objective: requests a second, or times the traffic."""
    if one.headroom is None:
        return ""
    return f"{one.headroom:.2f}×" if rate is None else f"{one.headroom * rate:.3g}/s"


def what_could_be(
    found: Search, asked: Sequence[Asked], profile: ServiceProfile, rate: float | None
) -> list[str]:
    """Both ways out of an objective that nothing meets: a later one, and less traffic."""
    fastest = found.fastest
    lines = [
        f"Nothing meets a 99th percentile of {found.objective_s:g} s here. The nearest is"
        f" {fastest.p99_range[1]:.3g} s, by: {fastest.configuration.name}."
    ]
    tried = found.candidates[:_TRIED_SLOWER]
    rooms = [headroom(asked, one.configuration, profile, found.objective_s) for one in tried]
    room = max(rooms)
    if not room:
        alone = profile.layouts[0].parts(1)[profile.shape].alone(profile.steps, profile.rows)
        lines.append(
            f"Nor would it at any slower pace: a picture takes {alone:.3g} s with the machine to"
            " itself. Fewer steps would help, or a faster machine."
        )
        return lines
    pace = f"{room:.2f} times it" if rate is None else f"{room * rate:.3g} requests a second"
    best = tried[rooms.index(room)].configuration.name
    lines.append(f"Of this traffic the machine carries {pace} within the objective, by: {best}.")
    return lines
