"""Loads, settings and fleets for tests of scaling."""

from __future__ import annotations

from pathlib import Path

from diffusion_costs.scaling.fleet import Fleet
from diffusion_costs.scaling.outcomes import Tariff
from diffusion_costs.scaling.policies import Fixed, Policy, Seen
from diffusion_costs.scaling.runs import Load, Run
from diffusion_costs.scaling.settings import Behaviour, ScalingSettings, Spot
from diffusion_costs.scaling.speed import Speed

ROOT = Path(__file__).parents[2]
HOUR_S, DAY_S = 3600.0, 86_400.0

SPEED = Speed((0.3,), "a test", measured=True)
"""A picture of 20 steps in 6 s, one at a time."""

SHARED = Speed((0.3, 0.4), "a test", measured=True)
"""Two at a time, each then slower."""

TARIFF = Tariff("gpu", "USD", on_demand=1.0, spot=0.4)
AT_ONCE = Behaviour(up_pods=99, up_period_s=1, down_pods=99, down_period_s=1)


def settings(**changes: object) -> ScalingSettings:
    read = ScalingSettings.read(ROOT / "config" / "scaling.yaml")
    return ScalingSettings.model_validate({**read.model_dump(), **changes})


def fixed(replicas: int) -> Fixed:
    return Fixed(replicas, AT_ONCE)


def seen(**changes: object) -> Seen:
    plain = Seen(
        now=0.0, desired=1, ready=1, waiting=0, pending_steps=0.0, use=0.0, arriving=0.0, before=()
    )
    values = {name: getattr(plain, name) for name in Seen.__slots__} | changes
    return Seen(**values)


def load(*times: float, work: float = 20.0, horizon_s: float = HOUR_S, from_s: float = 0.0) -> Load:
    return Load(times, [work] * len(times), horizon_s, from_s)


def play(
    policy: Policy,
    asked: Load,
    speed: Speed = SPEED,
    cold_start_s: float = 10.0,
    spot: Spot | None = None,
    **changes: object,
) -> Run:
    return Fleet(policy, speed, settings(**changes), cold_start_s, spot).run(asked)
