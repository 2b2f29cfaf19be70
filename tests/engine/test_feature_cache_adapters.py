"""Feature caches and adapters at once: rows leave a call whose layers know each row's adapters."""

from __future__ import annotations

from adapter_rig import adapter_stage
from feature_cache_rig import DEEP, cache_of
from rig import Asked, apart, assert_same_image, finish, images_of

from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.engine import StepEngine
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline


def engine() -> StepEngine:
    stage = adapter_stage("sd")
    served = ServedPipeline(stage.rig.tasks, PromptCache(1 << 26), feature_cache=DEEP)
    for name, adapter in stage.adapters.items():
        served.adapters.add(name, adapter)
    return StepEngine(served, SchedulingPolicy(16))


def test_in_company_as_alone() -> None:
    stage, (first, second, *_) = adapter_stage("sd"), sorted(adapter_stage("sd").adapters)
    wanted = [
        (Asked(steps=7, seed=1), {first: 0.9}),
        (Asked(steps=6, seed=2), {second: 0.7, first: 0.2}),
        (Asked(steps=5, seed=3), None),
    ]
    running = engine()
    tickets = []
    for asked, weights in wanted:
        tickets.append(running.submit(stage.job(asked, weights)))
        for _ in range(3):
            running.step()
    finish(running)
    assert cache_of(running).skipped > 0
    for (asked, weights), ticket in zip(wanted, tickets, strict=True):
        alone = engine()
        own = alone.submit(stage.job(asked, weights))
        finish(alone)
        assert_same_image(images_of(ticket), images_of(own))
    plain = engine()
    ticket = plain.submit(stage.job(wanted[0][0], None))
    finish(plain)
    assert apart(images_of(ticket), images_of(tickets[0])) > 1 / 255
