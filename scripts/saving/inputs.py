"""What planners start from: prices, speeds, cold starts and traffic, and where each comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from diffusion_core.errors import ConfigError
from diffusion_core.profile import BatchProfile, Shape
from diffusion_costs.prices import Prices
from diffusion_costs.scaling.outcomes import Tariff
from diffusion_costs.scaling.runs import Load
from diffusion_costs.scaling.speed import Speed, works
from diffusion_costs.traces import Trace
from diffusion_costs.traffic import DAY_S, SHAPES, Traffic, whole_days
from serving.errors import Trouble


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a machine draws: a measured profile's curve, or the price table's estimate."""

    speed: Speed
    profile: BatchProfile | None
    shape: Shape

    @classmethod
    def read(cls, profile: Path | None, shape: str, prices: Prices, machine: str) -> Pace:
        """From the profile's file, if one is given."""
        try:
            wanted = Shape.parse(shape)
        except ValueError as error:
            raise Trouble(str(error)) from None
        if profile is None:
            return cls(Speed.of_table(prices, machine), None, wanted)
        read = BatchProfile.read(profile)
        source = f"{profile.name}, {read.source}, {read.measured}"
        return cls(Speed.of_curve(read.curve(wanted), source), read, wanted)

    def load(self, trace: Trace, default_steps: int, learn_s: float, hours: float | None) -> Load:
        """The trace as work; it stands for whole days, or for so many hours."""
        last = trace.requests[-1].seconds
        horizon = hours * 3600 if hours else whole_days(last)
        if last > horizon:
            raise Trouble(f"HOURS: the trace's last request comes after {last / 3600:.2f} hours")
        return Load(
            times=[one.seconds for one in trace.requests],
            works=works(trace.requests, default_steps, self.profile, self.shape),
            horizon_s=horizon,
            from_s=learn_s,
        )


def tariff(prices: Prices, machine: str, region: str, at: datetime) -> Tariff:
    """A machine's prices on a day; refused where the table has none, or none for the region."""
    made = Tariff.of(prices, machine, at)
    known = prices.machines[machine].region
    if region and known != region:
        there = sorted(name for name, one in prices.machines.items() if one.region == region)
        of = f"of {known}" if known else "of no region in particular"
        other = f"machines with prices there: {', '.join(there)}" if there else "no machine has one"
        raise ConfigError(
            f"machines.{machine}: its prices are {of}, not of {region}; {other}",
            field=f"machines.{machine}.region",
            bound={
                "expected": sorted({one.region for one in prices.machines.values() if one.region})
            },
        )
    return made


def cold_start(given: float | None, measured: Path, model: str) -> tuple[float, str]:
    """Seconds until a model draws on a machine that is there, and where that comes from."""
    if given is not None:
        return given, "as given"
    try:
        found = json.loads(measured.read_text(encoding="utf-8"))
        seconds = found["results"][model]["seconds"]["whole"]["median"]
        return float(seconds), f"{measured.name}, {model}, {found['date']}"
    except OSError:
        raise Trouble(
            f"{measured} is missing: `make bench` measures it, or give COLD_START"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(f"{measured}: tells no cold start of {model}: {error!r}") from None


def made_up(traffic: Traffic) -> Trace:
    """Made-up requests; `Trouble` for a kind of day that there is none of, or no request at all."""
    if traffic.shape not in SHAPES:
        raise Trouble(f"TRAFFIC: {traffic.shape!r} is none; known are {', '.join(SHAPES)}")
    try:
        return traffic.trace()
    except ValueError as error:
        raise Trouble(f"RATE: {error} in {traffic.days} days at {traffic.rate:g}/s") from None


def one_kind(shapes: Sequence[str] | None, default: str) -> str:
    """The kind of day that is asked for; `Trouble` for several."""
    if shapes and len(shapes) > 1:
        raise Trouble(f"TRAFFIC: one kind of day at a time, not {', '.join(shapes)}")
    return shapes[0] if shapes else default


def of_one_model(
    trace: Trace, name: str | None, default: str, say: Callable[[str], None]
) -> tuple[str, Trace]:
    """The requests to one model, and its name: as given, the only one of the trace, or `default`.

    How many are left out is said. `Trouble` where the trace asks nothing of the model, and where it
    names several and none is given.
    """
    known = sorted({one.model for one in trace.requests if one.model is not None})
    if name is None and len(known) > 1:
        raise Trouble(f"the trace is of several models, {', '.join(known)}: NAME says which one")
    chosen = name or (known[0] if known else default)
    try:
        mine = trace.of_model(chosen)
    except ValueError as error:
        raise Trouble(f"NAME: {error}") from None
    if left := len(trace) - len(mine):
        say(f"{left:,} of {len(trace):,} requests are left out: they are not of {chosen}.")
    return chosen, mine


def learning_s(trace: Trace) -> float:
    """The first day of a trace of several is for policies to learn from."""
    return DAY_S if trace.requests[-1].seconds > DAY_S else 0.0
