"""Tables of the planners on a terminal of 80 columns: no column is cut, no line longer."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console
from scaling_rig import SPEED, TARIFF, load, settings

from check_scaling import check_table as run_table
from choosing.report import fleet_table, offer_notes, offer_table, reasons, roofline_table
from diffusion_costs.caching.accesses import Access
from diffusion_costs.caching.planning import plan
from diffusion_costs.caching.tiers import MemoryTier
from diffusion_costs.fleets.choice import choose
from diffusion_costs.fleets.planning import Fleet, Offer
from diffusion_costs.fleets.planning import Speed as Carried
from diffusion_costs.fleets.roofline import Held
from diffusion_costs.money import Money
from diffusion_costs.prices import Hourly, Machine
from diffusion_costs.savings.measures import Measure, Saving, Savings
from diffusion_costs.savings.scenario import Bill
from diffusion_costs.scaling.outcomes import Objective
from diffusion_costs.scaling.planning import SPOT, Planner
from diffusion_costs.tuning.configurations import UNTIL_FULL_MS, Configuration
from diffusion_costs.tuning.search import Candidate, Search
from diffusion_costs.tuning.simulation import Outcome
from diffusion_costs.tuning.verdicts import Verdict
from saving.cache_check import Checked
from saving.caching_table import caching_table, check_table
from saving.savings_table import details, savings_table
from saving.scaling_table import scaling_table
from tuning.report import tables, verdict_table


def shown(*parts: object) -> list[str]:
    """Lines as both kinds of console of the programs write them."""
    found = []
    for soft_wrap in (True, False):
        file = StringIO()
        Console(width=80, file=file, soft_wrap=soft_wrap).print(*parts, sep="\n")
        text = file.getvalue()
        assert "…" not in text
        found.append(text.splitlines())
    hard = found[1]
    assert max(map(len, hard)) <= 80
    return hard


def line_of(lines: list[str], *words: str) -> str:
    """The one line that holds all of the words, each whole."""
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


def outcome(p99: float) -> Outcome:
    return Outcome([p99 * 0.4] * 98 + [p99] * 2, 0, 1234.5, 0.87, 0.3)


def tried(kind: str, workers: int, batch: int, delay: int, *p99s: float) -> Candidate:
    rows = 2 * batch
    way = Configuration(kind, workers, 1, batch, delay, rows)
    return Candidate(way, [outcome(one) for one in p99s], 1.37)


def test_what_tune_found() -> None:
    found = Search(
        3.0,
        [
            tried("adaptive", 2, 4, 1, 1.82, 1.73, 1.91),
            tried("dynamic", 16, 32, 500, 1.23456, 2.34567),
            tried("continuous", 2, 32, 20, 12.3456, 123.456),
            tried("fixed", 2, 32, UNTIL_FULL_MS, 1234.5, 2345.6),
        ],
    )
    lines = shown(*tables(found, 4.0))
    first = [line for line in lines if line.startswith("adaptive ")]
    assert len(first) == 2
    assert first[0] == first[1]
    for word in ("2 × 4, 1 ms", "1.82 (1.73–1.91)", "5.48/s", "87%"):
        assert word in first[0]
    assert any("fixed" in line and "2 × 32, until full" in line for line in lines)
    assert "adaptive, 2 × 4, 1 ms, 8 rows: the best" in lines
    assert any(line.startswith("continuous, 2 × 32, 20 ms, 64 rows: 99th perc") for line in lines)


def test_verdicts() -> None:
    found = [Verdict("p99", "s", 3.583, 3.926)]
    assert "holds" in line_of(shown(verdict_table(found)), "p99", "3.583", "3.926")


def machine(name: str, rate: float, on_demand: float, spot: float) -> Offer:
    price = Hourly.model_validate({"from": "2026-01-01", "on_demand": on_demand, "spot": spot})
    known = Machine(provider="aws", type=name, region="us-east-1", source="a test", prices=(price,))
    note = "roofline, of which 61% is attained as on this machine; continuous, 1 × 32, 20 ms"
    carried = Carried(rate, 0.123, estimate=True, note=note)
    return Offer(name, known, carried, Money.of(on_demand, "USD"), Money.of(spot, "USD"))


def test_machines_and_fleets() -> None:
    offers = [machine("a100-80gb", 592.9, 12.34, 3.45), machine("cpu-2", 0.1, 0.085, 0.035)]
    fleet = Fleet(offers, 12, [123, 45], 120, 0.0123, Money.of(123_456.78, "USD"))
    choice = choose([fleet, replace(fleet, reason="spot machines go together")], offers, None)
    lines = shown(offer_table(offers, 3.0), *offer_notes(offers))
    assert "estimate" in line_of(lines, "a100-80gb", "2,134,440", "12.34", "3.45", "0.123")
    assert any(line.startswith("cpu-2 (us-east-1): roofline, of which 61%") for line in lines)
    lines = shown(fleet_table(choice, 60.0, 730), *reasons(choice))
    assert len([line for line in lines if "123,456.78" in line and "1.23%" in line]) == 2
    assert any(line.startswith("1. 12 × a100-80gb + 123 × a100-80gb spot") for line in lines)
    line_of(shown(roofline_table([Held("denoiser, 16 rows", 0.123, 0.456)])), "27%", "456.00")


def test_a_plan_for_scaling() -> None:
    planner = Planner(SPEED, TARIFF, settings(most=6), Objective(30.0), 10.0, draws=1)
    found = planner.plan(load(*(60.0 * n for n in range(30)), horizon_s=1800.0))
    lines = shown(scaling_table(found, TARIFF, "a day"))
    for purchase in ("on demand", SPOT):
        mine = [one for one in found.candidates if one.outcome.purchase == purchase]
        begin = next(n for n, line in enumerate(lines) if line.strip() == purchase)
        for line, one in zip(
            lines[begin + 1 :], sorted(mine, key=lambda one: one.outcome.month), strict=False
        ):
            assert one.outcome.policy in line
            assert f"{one.outcome.within:.2%}" in line


def test_a_plan_for_caching() -> None:
    asked = [Access(float(n), n % 3, 10**9, 200.0) for n in range(90)]
    places = [MemoryTier(1e-9, "object storage, CDN"), MemoryTier(1.0, "Redis")]
    found = plan(asked, places, 3.0, 3600, 1e9, 8, "USD")
    assert found.best is not None
    lines = shown(caching_table(found, "USD", "a month"))
    assert any(
        line.startswith("* object storage, CDN ") and f"{found.best.net:,.2f}" in line
        for line in lines
    )
    line_of(shown(check_table([Checked(10**9, 2000, 1234, 1234)])), "1 GB", "1234")


def test_savings() -> None:
    now, after = Bill(123_456.78, 0.0, 0.9986, 5), Bill(98_765.43, 12.0, 1.0, 4)
    detail = "models share machines, sleep after 300 s, wake in 7.3 s (mid)"
    measure = Measure("a cache of pictures", lambda one: one, detail, "a file", "make it")
    saving = Saving(measure, 24_691.35, 24_691.35, 1.0, after)
    found = Savings(now, after, [saving], [saving])
    lines = shown(savings_table(found, "USD"), *details(found))
    line_of(lines, "a cache of pictures", "24,691.35", "100.00%", "98,765.43")
    assert sum(line.startswith("a cache of pictures: models share") for line in lines) == 2


def test_a_check_of_scaling() -> None:
    figures = {
        name: {"replica_s": 174.0, "idle": 0.34, "p99": 13.6}
        for name in ("foreseen", "with times as seen", "seen")
    }
    lines = shown(run_table(figures, "arriving and pending steps"))
    assert line_of(lines, "replica s").count("174") == 3
