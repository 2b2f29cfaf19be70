"""A month of traffic on machines: the bill of one way to serve it, by simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusion_core.profile import BatchProfile, Shape
from diffusion_costs.caching.accesses import accesses
from diffusion_costs.caching.replay import repeats
from diffusion_costs.caching.tiers import Tier
from diffusion_costs.scaling.outcomes import MONTH_H, Objective, Tariff
from diffusion_costs.scaling.planning import ON_DEMAND, Planner
from diffusion_costs.scaling.policies import HOUR_S
from diffusion_costs.scaling.runs import Load, Run
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.scaling.speed import Speed, works
from diffusion_costs.traces import TracedRequest


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """A cache of pictures: how many bytes, where, and how long each is kept."""

    size: int
    lifetime_s: float
    bytes_per_pixel: float
    tier: Tier


@dataclass(frozen=True, slots=True)
class IdleModels:
    """Models share machines; one without requests for `after_s` sleeps and wakes in `wake_s`."""

    after_s: float
    wake_s: float


@dataclass(frozen=True, slots=True)
class Scaled:
    """A policy of `diffusion_costs.scaling` by its name, and how its machines are paid for.

    A machine that is not to be had as spot is on demand, whatever the purchase.
    """

    policy: str
    purchase: str = ON_DEMAND


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way to serve a month's requests.

    Attributes:
        horizon_s: how long the requests stand for.
        factor: of the seconds of a step, by what was changed in the pipeline and its serving.
        scaled: None for fleets of one size, the smallest that is in time.
        idle: None where each model has machines of its own that are always awake.
    """

    requests: Sequence[TracedRequest]
    horizon_s: float
    speed: Speed
    tariff: Tariff
    objective: Objective
    settings: ScalingSettings
    cold_start_s: float
    default_steps: int
    shape: Shape
    profile: BatchProfile | None = None
    factor: float = 1.0
    scaled: Scaled | None = None
    cache: CacheChoice | None = None
    idle: IdleModels | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's cost, the part of it that a cache costs, and the part of requests in time."""

    month: float
    cache: float
    within: float
    replicas: float


def bill(scenario: Scenario) -> Bill:
    """What a month of the scenario comes to."""
    requests, hits, cache = _after_cache(scenario)
    asked = len(requests)
    in_time = float(hits)
    paid: dict[str, float] = defaultdict(float)
    for mine in _fleets(requests, shared=scenario.idle is not None):
        run = _run(scenario, mine)
        in_time += sum(one <= scenario.objective.latency_s for one in run.latencies)
        for purchase, seconds in run.paid_s.items():
            paid[purchase] += seconds
    months = scenario.horizon_s / HOUR_S / MONTH_H
    cost = scenario.tariff.cost(paid) / months
    return Bill(
        month=cost + cache,
        cache=cache,
        within=in_time / (asked + hits),
        replicas=sum(paid.values()) / scenario.horizon_s,
    )


def _after_cache(scenario: Scenario) -> tuple[Sequence[TracedRequest], int, float]:
    """The requests that still have to be drawn, how many need not be, and the cache's cost."""
    cache = scenario.cache
    if cache is None:
        return scenario.requests, 0, 0.0
    requests = scenario.requests
    asked = accesses(requests, [0.0] * len(requests), cache.bytes_per_pixel, scenario.shape.pixels)
    found, hit = repeats(asked, cache.size, cache.lifetime_s)
    left = [one for one, was_hit in zip(requests, hit, strict=True) if not was_hit]
    months = scenario.horizon_s / HOUR_S / MONTH_H
    return left, found.hits, cache.tier.month(found, months)


def _fleets(requests: Sequence[TracedRequest], *, shared: bool) -> list[Sequence[TracedRequest]]:
    """Requests by the machines that draw them: a fleet for each model, or one for all."""
    if shared:
        return [requests] if requests else []
    by_model: Mapping[str | None, list[TracedRequest]] = defaultdict(list)
    for one in requests:
        by_model[one.model].append(one)
    return list(by_model.values())


def _run(scenario: Scenario, requests: Sequence[TracedRequest]) -> Run:
    speed = scenario.speed.slower(scenario.factor)
    work = works(requests, scenario.default_steps, scenario.profile, scenario.shape)
    if scenario.idle is not None:
        wakes = _wakes(requests, scenario.idle)
        # A replica that loads a model draws nothing meanwhile.
        lost = scenario.idle.wake_s / speed.step_s[0]
        work = [one + lost * wake for one, wake in zip(work, wakes, strict=True)]
    load = Load([one.seconds for one in requests], work, scenario.horizon_s)
    scaled = scenario.scaled
    planner = Planner(
        speed,
        scenario.tariff,
        scenario.settings,
        scenario.objective,
        scenario.cold_start_s,
        seed=scenario.seed,
    )
    if scaled is None:
        return planner.smallest(load)
    purchase = ON_DEMAND if scenario.tariff.spot is None else scaled.purchase
    return planner.run(planner.policy(scaled.policy, load), purchase, load)


def _wakes(requests: Sequence[TracedRequest], idle: IdleModels) -> list[bool]:
    """Which requests find their model asleep."""
    last: dict[str | None, float] = {}
    found = []
    for one in requests:
        before = last.get(one.model)
        found.append(before is None or one.seconds - before > idle.after_s)
        last[one.model] = one.seconds
    return found
