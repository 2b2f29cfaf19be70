"""The simulated TorchServe: times that can be told by hand."""

from __future__ import annotations

import random

import pytest
from service_profiles import DECODE, ENCODE, IMAGE, ROWS, START, STEPS, service, step_seconds

from diffusion_core.profile import Shape
from diffusion_costs.traces import Trace, TracedRequest
from diffusion_costs.tuning.configurations import UNTIL_FULL_MS, Configuration
from diffusion_costs.tuning.simulation import (
    Asked,
    poisson,
    replayed,
    simulate,
    simulate_clients,
)

SHAPE = Shape(64, 64)
ALONE = START + ENCODE + STEPS * step_seconds(2) + DECODE + IMAGE


def asked(*times: float, steps: int = STEPS, encode: bool = True) -> list[Asked]:
    return [Asked(time, steps, SHAPE, ROWS, encode) for time in times]


def way(kind: str, size: int = 4, delay: int = 0, workers: int = 1, queue: int = 100):
    threads = 2 // workers
    return Configuration(kind, workers, threads, size, delay, ROWS * size, queue)


@pytest.mark.parametrize("kind", ["dynamic", "continuous"])
def test_a_request_alone_takes_its_parts_and_the_batch_delay(kind: str) -> None:
    profile = service(request=0.01)
    (latency,) = simulate(asked(5.0), way(kind, delay=50), profile).latencies
    assert latency == pytest.approx(ALONE + 0.01 + 0.05)


def test_a_batch_of_one_waits_for_nobody() -> None:
    (latency,) = simulate(asked(0.0), way("dynamic", 1, 500), service()).latencies
    assert latency == pytest.approx(ALONE)


def test_a_prompt_that_is_known_is_not_encoded() -> None:
    (latency,) = simulate(asked(0.0, encode=False), way("dynamic", 1), service()).latencies
    assert latency == pytest.approx(ALONE - ENCODE)


def test_a_classic_batch_is_answered_together() -> None:
    outcome = simulate(asked(0.0, 0.01), way("dynamic", 4, 50), service())
    first, second = outcome.latencies
    whole = 2 * (START + ENCODE + DECODE) + STEPS * step_seconds(4) + IMAGE
    assert first == pytest.approx(0.05 + whole)
    assert second == pytest.approx(first - 0.01)


def test_fixed_batches_wait_until_they_are_full() -> None:
    outcome = simulate(asked(0.0, 7.0), way("fixed", 2, UNTIL_FULL_MS), service())
    assert outcome.latencies[0] > 7.0


def test_without_a_delay_torchserve_takes_two_at_most() -> None:
    # The first occupies the worker; four wait for it.
    outcome = simulate(asked(0.0, 0.1, 0.1, 0.1, 0.1), way("dynamic", 4, 0), service())
    ends = [0.1 * (place > 0) + one for place, one in enumerate(outcome.latencies)]
    assert ends[1] == ends[2] < ends[3] == ends[4]


def test_continuous_requests_join_a_batch_in_flight() -> None:
    times = asked(0.0, 0.1)
    joined = simulate(times, way("continuous", 4, 0), service())
    waited = simulate(times, way("adaptive", 4, 1), service())
    assert joined.latencies[1] < waited.latencies[1]
    # And leaves when it is done, not with its company.
    assert joined.latencies[0] < joined.latencies[1] + 0.1


def test_two_workers_are_slower_side_by_side() -> None:
    profile = service(2, slower=1.8)
    alone = simulate(asked(0.0), way("dynamic", 1, 1, workers=2), profile).latencies
    both = simulate(asked(0.0, 0.0), way("dynamic", 1, 1, workers=2), profile).latencies
    assert alone[0] == pytest.approx(ALONE)
    assert ALONE * 1.5 < max(both) < ALONE * 1.8


def test_the_queue_has_a_bound() -> None:
    outcome = simulate(asked(*[0.0] * 10), way("dynamic", 1, 1, queue=3), service())
    assert outcome.refused == 6
    assert len(outcome.latencies) == 4
    assert outcome.percentile(99) == float("inf")


def test_slowness_scales_the_parts() -> None:
    profile = service()
    slow = [one.model_copy(update={"slowness": 2.0}) for one in profile.overheads]
    slower = profile.model_copy(update={"overheads": tuple(slow)})
    (latency,) = simulate(asked(0.0), way("dynamic", 1, 1), slower).latencies
    assert latency == pytest.approx(2 * ALONE)


def test_clients_that_wait_for_their_answers() -> None:
    outcome = simulate_clients(1, asked(*[0.0] * 5), way("dynamic", 1, 1), service())
    assert outcome.seconds == pytest.approx(5 * ALONE)
    full = simulate_clients(8, asked(*[0.0] * 32), way("dynamic", 4, 50), service())
    assert full.throughput > outcome.throughput


@pytest.mark.parametrize("kind", ["fixed", "dynamic", "adaptive", "continuous"])
@pytest.mark.parametrize("workers", [1, 2])
def test_everybody_is_answered_once(kind: str, workers: int) -> None:
    draw = random.Random(3)
    requests = sorted(
        (
            Asked(draw.uniform(0, 60), draw.randint(1, 30), SHAPE, ROWS, draw.random() < 0.5)
            for _ in range(200)
        ),
        key=lambda one: one.time,
    )
    delay = {"fixed": UNTIL_FULL_MS, "dynamic": 100}.get(kind, 20)
    configuration = way(kind, 4, delay, workers)
    outcome = simulate(requests, configuration, service(2))
    counted = 200 - (4 * workers if kind == "fixed" else 0)
    assert (len(outcome.latencies), outcome.refused) == (counted, 0)
    assert min(outcome.latencies) > START + step_seconds(2) + DECODE + IMAGE
    assert 0 < outcome.busy <= 1


def test_the_same_seed_draws_the_same_arrivals() -> None:
    profile = service()
    assert poisson(profile, 2.0, 50, 1) == poisson(profile, 2.0, 50, 1)
    assert poisson(profile, 2.0, 50, 1) != poisson(profile, 2.0, 50, 2)


def test_a_trace_says_what_it_knows() -> None:
    trace = Trace(
        [
            TracedRequest(10.0, "cat"),
            TracedRequest(11.0, "cat", steps=4, width=128, height=64),
            TracedRequest(12.0),
        ]
    )
    first, second, third = replayed(service(), trace)
    assert (first.time, second.time) == (0.0, 1.0)
    assert (first.encode, second.encode, third.encode) == (True, False, True)
    assert (first.steps, first.shape) == (STEPS, SHAPE)
    assert (second.steps, second.shape) == (4, Shape(128, 64))


def test_a_size_that_was_not_measured_is_estimated_by_pixels() -> None:
    trace = Trace([TracedRequest(0.0, width=128, height=64)])
    requests = replayed(service(), trace)
    (latency,) = simulate(requests, way("dynamic", 1, 1), service()).latencies
    double = START + ENCODE + 2 * (STEPS * step_seconds(2) + DECODE + IMAGE)
    assert latency == pytest.approx(double)
