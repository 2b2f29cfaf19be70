"""What other commands measured, read from the files that they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.caching.tiers import Tier, tiers
from diffusion_costs.prices import Prices, Purchase
from diffusion_costs.savings.measures import Measure, Missing
from diffusion_costs.savings.scenario import CacheChoice, IdleModels, Scaled, Scenario
from diffusion_costs.scaling.outcomes import Tariff

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files are; `None` where there is none to look for.

    Attributes:
        traffic: the month's name, by which plans for the same are found.
        rows: of make optimize; `floor`: the least SSIM of a variant that may be chosen.
        waking: of make bench; `waking_model`: whose waking counts.
        idle_after_s: without requests, before a model sleeps.
    """

    scaling: Path
    caching: Path
    tuning: Path
    instances: Path
    rows: Path
    waking: Path
    waking_model: str
    idle_after_s: float
    traffic: str
    floor: float = 0.9


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    command: str
    path: Path
    read: Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]


def evidence(
    places: Places,
    prices: Prices,
    caching: CachingSettings,
    machine: str,
    at: datetime,
    *,
    batched: bool = False,
) -> tuple[Sequence[Measure], Sequence[Missing]]:
    """Measures of which something was measured, and those of which nothing was.

    Args:
        machine: what is rented today; `batched`: its speed is one of requests that share calls, so
            that batching has nothing left to save.
    """
    known = {tier.name: tier for tier in tiers(prices, caching, at)}
    sources = [
        _Source("scaling", "make plan-scaling", places.scaling, _scaling(places.traffic)),
        _Source("a cache of pictures", "make plan-cache", places.caching, _caching(known)),
        _Source("idle models", 'make bench ARGS="--only waking"', places.waking, _idle(places)),
        _Source("a faster variant", "make optimize", places.rows, _variant(places.floor)),
        _Source("batching", "make tune", places.tuning, _batching(batched=batched)),
        _Source(
            "another machine",
            "make choose-instance",
            places.instances,
            _instance(prices, machine, at),
        ),
    ]
    found: list[Measure] = []
    missing: list[Missing] = []
    for one in sources:
        measure = _measure(one)
        if isinstance(measure, Measure):
            found.append(measure)
        else:
            missing.append(measure)
    return found, missing


def _measure(source: _Source) -> Measure | Missing:
    try:
        document = json.loads(source.path.read_text(encoding="utf-8"))
        apply, detail = source.read(document)
    except OSError:
        return Missing(source.name, source.command, f"{source.path.name} is not there")
    except LookupError as error:
        return Missing(source.name, source.command, f"{source.path.name}: {_words(error)}")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{source.path}: is not what {source.command} writes: {error}") from None
    told = document.get("made") or document.get("date") or document.get("measured")
    try:
        made = date.fromisoformat(str(told))
    except ValueError:
        # A file that tells no day of its own is as old as it is on disk.
        made = datetime.fromtimestamp(source.path.stat().st_mtime, UTC).date()
    return Measure(source.name, apply, detail, source.path.name, source.command, made)


def _words(error: LookupError) -> str:
    said = error.args[0] if error.args else "nothing"
    return f"tells no {said!r}" if isinstance(error, KeyError) else str(said)


def _scaling(traffic: str) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        # The plan for this very traffic, where there is one.
        same = [plan for plan in document["plans"] if plan["traffic"] == traffic]
        winners = [plan["winner"] for plan in same or document["plans"] if plan["winner"]]
        scaling = [one for one in winners if not one["policy"].startswith("fixed")]
        if not scaling:
            raise LookupError("no policy that scales was in time and cheaper")
        chosen = min(scaling, key=lambda one: float(one["month"]))
        policy = Scaled(chosen["policy"], chosen["purchase"])
        return lambda one: replace(one, scaled=policy), f"{policy.policy}, {policy.purchase}"

    return read


def _caching(
    known: Mapping[str, Tier],
) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        best, premises = document["best"], document["premises"]
        if best is None:
            raise LookupError("no cache pays")
        choice = CacheChoice(
            best["size"],
            premises["settings"]["lifetime_s"],
            premises["bytes_per_pixel"],
            known[best["tier"]],
        )
        detail = f"{best['size'] / 1e9:.3g} GB in {best['tier']}"
        return lambda one: replace(one, cache=choice), detail

    return read


def _idle(places: Places) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        found = document["results"][places.waking_model]
        wake_s = found["asleep_s"]["median"] - found["awake_s"]["median"]
        idle = IdleModels(places.idle_after_s, wake_s)
        detail = (
            f"models share machines, sleep after {idle.after_s:g} s, wake in {wake_s:.1f} s"
            f" ({places.waking_model})"
        )
        return lambda one: replace(one, idle=idle), detail

    return read


def _variant(floor: float) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        rows = [
            row
            for row in document["rows"]
            if row["error"] is None
            and row["moved"]
            and row["moved"]["ssim"] >= floor
            and row["speedup"]
            and min(row["speedup"]) > 1
        ]
        if not rows:
            raise LookupError(f"no variant is surely faster at SSIM {floor:g} or more")
        best = max(rows, key=lambda row: float(median(row["speedup"])))
        faster = float(median(best["speedup"]))
        near = f"SSIM {best['moved']['ssim']:.3f}"
        detail = f"{best['name']}: {faster:.2f} times the images a second, {near}"
        return lambda one: replace(one, factor=one.factor / faster), detail

    return read


def _batching(*, batched: bool) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        if batched:
            raise LookupError("the month as it is has requests share calls already (CURVE)")
        in_time = [one for one in document["candidates"] if one["headroom"]]
        chosen = [one for one in in_time if not one["why_not"]]
        alone = [one for one in in_time if one["batch_size"] == 1 or one["max_rows"] == 1]
        if not chosen or not alone:
            raise LookupError("no configuration without batches to compare with was in time")
        base = max(alone, key=lambda one: float(one["headroom"]))
        more = chosen[0]["headroom"] / base["headroom"]
        if more <= 1:
            raise LookupError("no configuration carries more than one without batches")
        detail = f"{chosen[0]['kind']}: carries {more:.2f} times what single requests do"
        return lambda one: replace(one, factor=one.factor / more), detail

    return read


def _instance(
    prices: Prices, machine: str, at: datetime
) -> Callable[[Document], tuple[Callable[[Scenario], Scenario], str]]:
    def read(document: Document) -> tuple[Callable[[Scenario], Scenario], str]:
        rates = {one["machine"]: one["images_per_hour"] for one in document["machines"]}
        present = rates.get(machine)
        if not present:
            raise LookupError(f"it has no speed of {machine}, the machine of today")
        offers = {
            name: hourly / rate
            for name, rate in rates.items()
            if rate and (hourly := _on_demand(prices, name, at)) is not None
        }
        if not offers:
            raise LookupError("none of its machines has a price on demand")
        best = min(offers, key=lambda name: offers[name])
        if best == machine:
            raise LookupError(f"{machine} is the cheapest for a picture already")
        slower = present / rates[best]
        tariff = Tariff.of(prices, best, at)

        def apply(one: Scenario) -> Scenario:
            return replace(one, tariff=tariff, factor=one.factor * slower)

        return apply, f"{best} in place of {machine}, {1 / slower:.2f} times its images an hour"

    return read


def _on_demand(prices: Prices, machine: str, at: datetime) -> float | None:
    """Its price by the hour; None where the table has no such machine, or only as spot."""
    try:
        return float(prices.hourly(machine, Purchase.ON_DEMAND, at).amount)
    except ConfigError:
        return None
