"""What a schedule came to: latencies in seconds, for all and for short and long requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import StepCurve
from diffusion_costs.percentiles import percentile
from scheduling.servers import SERVERS, in_order
from scheduling.workloads import Arrival, Workload

SHORT, LONG = 8, 28
"""Requests of at most SHORT steps, and of at least LONG, are told apart from the rest."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One server on one workload.

    Attributes:
        throughput: images a second from the first arrival to the last completion.
        median: median latency; p99 and its kin are 99th percentiles, of short and long requests.
        worst_ratio: the largest latency over the same request's under first come, first served.
        late: requests later than twice that latency and one full call, the policy's promise.
    """

    workload: str
    server: str
    requests: int
    throughput: float
    median: float
    p99: float
    p99_short: float
    p99_long: float
    worst_ratio: float
    late: int


def outcomes(
    workload: Workload, curve: StepCurve, policy: SchedulingPolicy, count: int, seed: int
) -> list[Outcome]:
    """Every server's outcome on one draw of the workload's arrivals."""
    cap = policy.cap if policy.override else min(policy.cap, curve.cap)
    full = curve.at(cap)
    arrivals = workload.arrivals(count, full / cap, seed)
    reference = _latencies(arrivals, in_order(arrivals, curve, policy))
    found = []
    for name, server in SERVERS.items():
        done = server(arrivals, curve, policy)
        latencies = _latencies(arrivals, done)
        pairs = list(zip(latencies, reference, strict=True))
        found.append(
            Outcome(
                workload=workload.name,
                server=name,
                requests=count,
                throughput=count / (max(done) - arrivals[0].time),
                median=percentile(latencies, 0.5),
                p99=_p99(latencies),
                p99_short=_p99(_of(arrivals, latencies, 0, SHORT)),
                p99_long=_p99(_of(arrivals, latencies, LONG, max(workload.steps))),
                worst_ratio=max(ours / theirs for ours, theirs in pairs),
                late=sum(ours > 2 * theirs + full for ours, theirs in pairs),
            )
        )
    return found


def _p99(values: Sequence[float]) -> float:
    """The 99th percentile; nan where there are none."""
    return percentile(values, 0.99) if values else nan


def _latencies(arrivals: Sequence[Arrival], done: Sequence[float]) -> list[float]:
    return [end - one.time for one, end in zip(arrivals, done, strict=True)]


def _of(
    arrivals: Sequence[Arrival], latencies: Sequence[float], least: int, most: int
) -> list[float]:
    return [
        seconds
        for one, seconds in zip(arrivals, latencies, strict=True)
        if least <= one.steps <= most
    ]
