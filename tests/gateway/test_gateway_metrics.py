"""What the gateway counts, read as Prometheus reads it."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api_rig import claim, client_of, finish, make_gateway
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Result, Status, new_id
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.stores.store import WorkerState
from gateway_samples import job
from scraped import Scrape

PROMPT = "a secret prompt"
JOB = {"model": "emoji", "source": "job"}
COMPLETED = {"status": "completed", "model": "emoji"}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with make_gateway(tmp_path) as made:
        yield made


async def scrape(gateway: Gateway) -> Scrape:
    gateway.metrics._depths._read_at = -10.0
    return Scrape((await gateway.metrics.scrape(gateway.store)).decode())


async def test_a_jobs_way_through_the_gateway_is_counted(gateway):
    async with client_of(gateway) as client:
        for seed in range(3):
            answer = await client.post("/generate", json={"prompt": PROMPT, "seed": seed})
            assert answer.status_code == 202
        await client.get("/jobs/none")
    await gateway.store.heartbeat(WorkerState("w", "spot", ("emoji",), 3, time.time() + 60))
    taken = await claim(gateway)
    assert taken is not None
    seen = await scrape(gateway)
    assert seen("diffusion_queue_size") == 2
    assert seen("diffusion_gateway_jobs", status="pending") == 2
    assert seen("diffusion_gateway_jobs", status="processing") == 1
    lane = {"model": "emoji", "lane": "normal"}
    assert seen("diffusion_gateway_queue_jobs", state="waiting", **lane) == 2
    assert seen("diffusion_gateway_queue_jobs", state="leased", **lane) == 1
    assert seen("diffusion_gateway_queue_work", **lane) == 2 * 10 * 64 * 64
    assert seen("diffusion_gateway_jobs_accepted_total", model="emoji") == 3
    assert seen("diffusion_gateway_workers", pool="spot") == 1
    assert seen("diffusion_gateway_worker_room", pool="spot") == 3
    oldest = seen("diffusion_gateway_oldest_waiting_seconds", model="emoji")
    assert oldest is not None
    assert 0 <= oldest < 30
    assert seen("diffusion_gateway_store_up") == 1
    assert "_created" not in seen.text
    route = {"route": "/generate", "method": "POST", "status": "202"}
    assert seen("diffusion_gateway_http_requests_total", **route) == 3
    unknown = {"route": "/jobs/{job_id}", "method": "GET", "status": "404"}
    assert seen("diffusion_gateway_http_requests_total", **unknown) == 1

    assert await finish(gateway, taken)
    gateway.metrics.job_ended(await gateway.store.get(taken.id))
    seen = await scrape(gateway)
    assert seen("diffusion_requests_total", status="completed", model="emoji") == 1
    assert seen("diffusion_generation_duration_seconds_count", model="emoji", steps="10") == 1
    assert seen("diffusion_gateway_phase_duration_seconds_count", model="emoji", phase="whole") == 1
    assert (
        seen("diffusion_gateway_phase_duration_seconds_count", model="emoji", phase="queue_wait")
        == 1
    )
    assert seen("diffusion_gateway_device_seconds_total", model="emoji") == 0.5
    for secret in (PROMPT, taken.id, "local"):
        assert secret not in seen.text


async def test_bytes_sent_are_those_that_clients_get(gateway):
    async with client_of(gateway) as client:
        kept = await client.post("/generate", json={"prompt": PROMPT})
        refused = await client.post("/generate", json={"prompt": ""})
        page = await client.get("/")
    assert (kept.status_code, refused.status_code, page.status_code) == (202, 422, 200)
    sent = (await scrape(gateway)).by("diffusion_gateway_sent_bytes_total", "route")
    assert sent["/generate"] == len(kept.content) + len(refused.content)
    assert sent["/"] == len(page.content)


async def test_the_guides_buckets_are_kept(gateway):
    gateway.metrics.job_ended(ended(seconds=4))
    seen = await scrape(gateway)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in seen.samples.items()
        if name == "diffusion_generation_duration_seconds_bucket"
    }
    guides = ["1.0", "2.0", "5.0", "10.0", "20.0", "30.0", "60.0", "120.0"]
    assert [bound for bound in buckets if bound in guides] == guides
    assert (buckets["2.0"], buckets["5.0"]) == (0, 1)


async def test_labels_are_bounded_whatever_is_asked(gateway):
    async with client_of(gateway) as client:
        for number in range(50):
            await client.get(f"/nothing/{number}")
            await client.get(f"/jobs/{new_id()}")
    for steps in range(1, 300):
        gateway.metrics.job_ended(ended(steps=steps))
    seen = await scrape(gateway)
    labels = {
        dict(labels)[name]
        for name in ("route", "steps")
        for (_, labels) in seen.samples
        if name in dict(labels)
    }
    assert "over 100" in labels
    assert len(labels) == 100 + 1 + 2


async def test_what_was_drawn_before_is_no_generation(gateway):
    gateway.metrics.job_ended(ended(cached=True))
    gateway.metrics.cache_hit("emoji", 2.5)
    seen = await scrape(gateway)
    assert seen("diffusion_requests_total", status="completed", model="emoji") == 1
    assert seen("diffusion_generation_duration_seconds_count", model="emoji", steps="4") is None
    assert seen("diffusion_gateway_device_seconds_total", model="emoji") is None
    assert seen("diffusion_gateway_cache_device_seconds_saved_total", model="emoji") == 2.5


async def test_depths_are_read_once_a_second_however_many_scrape(gateway):
    reads = []
    depths = gateway.store.depths

    async def counted() -> Any:
        reads.append(1)
        return await depths()

    gateway.store.depths = counted  # type: ignore[method-assign]
    for _ in range(20):
        await gateway.metrics.scrape(gateway.store)
    assert len(reads) == 1


async def test_a_store_that_does_not_answer_leaves_no_old_figures(gateway):
    async with client_of(gateway) as client:
        await client.post("/generate", json={"prompt": PROMPT})
    assert (await scrape(gateway))("diffusion_queue_size") == 1

    async def silent() -> Any:
        raise StoreUnavailableError("it is down")

    gateway.store.depths = silent  # type: ignore[method-assign]
    seen = await scrape(gateway)
    assert seen("diffusion_gateway_store_up") == 0
    assert math.isnan(seen("diffusion_queue_size") or 0.0)
    lane = {"model": "emoji", "lane": "normal", "state": "waiting"}
    assert seen("diffusion_gateway_queue_jobs", **lane) is None


async def test_metrics_need_a_key_where_keys_are_asked_for(tmp_path):
    async with make_gateway(tmp_path, auth="on") as gateway, client_of(gateway) as client:
        assert (await client.get("/metrics")).status_code == 401
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert "diffusion_queue_size 0.0" in answer.text


def test_endpoints_are_in_one_state_at_a_time():
    metrics = Metrics()
    metrics.endpoint("http://a", "ready")
    metrics.endpoint("http://a", "open")
    values = {
        sample.labels["state"]: sample.value
        for family in metrics.registry.collect()
        if family.name == "diffusion_gateway_endpoint"
        for sample in family.samples
    }
    assert values == {"ready": 0, "not_ready": 0, "asleep": 0, "open": 1}


def ended(seconds: float = 4.0, steps: int = 4, cached: bool = False) -> Any:
    return job(
        status=Status.COMPLETED,
        steps=steps,
        submitted_at=1000.0,
        started_at=1001.0,
        ended_at=1001.0 + seconds,
        result=Result(pictures=(), identity="identity", device_seconds=2.0, cached=cached),
    )


async def test_jobs_that_share_a_generation_are_counted_once_each(gateway):
    async with client_of(gateway) as client:
        same = {"prompt": PROMPT, "seed": 7}
        for _ in range(3):
            assert (await client.post("/generate", json=same)).status_code == 202
    assert (await scrape(gateway))("diffusion_requests_total", **COMPLETED) == 0
    leader = await claim(gateway)
    assert await claim(gateway) is None
    assert await finish(gateway, leader)
    gateway.metrics.job_ended(await gateway.store.get(leader.id))
    for _ in range(3):
        seen = await scrape(gateway)
        assert seen("diffusion_requests_total", **COMPLETED) == 3
    met = {"model": "emoji", "source": "job"}
    assert seen("diffusion_gateway_availability_events_total", outcome="good", **met) == 3
    assert seen("diffusion_gateway_device_seconds_total", model="emoji") == 0.5


async def test_a_follower_that_is_cancelled_is_not_counted_again(gateway):
    async with client_of(gateway) as client:
        same = {"prompt": PROMPT, "seed": 7}
        jobs = [(await client.post("/generate", json=same)).json()["job_id"] for _ in range(2)]
        assert (await client.delete(f"/jobs/{jobs[1]}")).status_code == 200
    for _ in range(2):
        seen = await scrape(gateway)
        assert seen("diffusion_requests_total", status="cancelled", model="emoji") == 1
    assert seen("diffusion_gateway_errors_total", kind="cancelled", **JOB) == 1
    assert seen.total("diffusion_gateway_availability_events_total", source="job") == 0


async def test_what_calls_meet_is_an_event_of_their_model(gateway):
    async with client_of(gateway) as client:
        kept = await client.post("/generate", json={"prompt": PROMPT})
        await client.get(f"/jobs/{kept.json()['job_id']}")
        await client.post("/generate", json={"prompt": ""})
        await client.post("/generate", json={"prompt": PROMPT, "model": "unheard of"})
        for path in ("/healthz", "/readyz", "/metrics", "/", "/nothing"):
            await client.get(path)

        async def silent(*_: Any) -> Any:
            raise StoreUnavailableError("it is down")

        gateway.store.submit = silent  # type: ignore[method-assign]
        assert (await client.post("/generate", json={"prompt": PROMPT})).status_code == 503
    seen = await scrape(gateway)
    events = "diffusion_gateway_availability_events_total"
    of_model = {"model": "emoji", "source": "request"}
    assert seen(events, outcome="good", **of_model) == 3
    assert seen(events, outcome="bad", **of_model) == 1
    # What names no known model is nobody's.
    assert seen.total(events, source="request") == 5
    errors = "diffusion_gateway_errors_total"
    assert seen.by(errors, "kind", **of_model) == {"validation": 1, "infrastructure": 1}
    assert seen.by(errors, "kind", model="") == {"client": 1}


@pytest.mark.parametrize(
    ("code", "status", "kind", "outcome"),
    [
        ("model_error", 500, "model", "bad"),
        ("out_of_memory", 507, "out_of_memory", "bad"),
        ("deadline_exceeded", 504, "deadline", "bad"),
        ("attempts_exhausted", 500, "infrastructure", "bad"),
        ("model_unserved", 503, "infrastructure", "bad"),
        ("upstream_error", 502, "upstream", "bad"),
        ("invalid_field", 422, "validation", "good"),
        ("of another version", 413, "client", "good"),
        ("of another version", 599, "infrastructure", "bad"),
    ],
)
async def test_a_failed_job_is_an_error_of_a_kind(gateway, code, status, kind, outcome):
    failed = ended().model_copy(
        update={"status": Status.FAILED, "result": None, "error": {"code": code, "status": status}}
    )
    gateway.metrics.job_ended(failed)
    seen = await scrape(gateway)
    assert seen("diffusion_gateway_errors_total", kind=kind, **JOB) == 1
    assert seen("diffusion_gateway_availability_events_total", outcome=outcome, **JOB) == 1
    assert seen("diffusion_requests_total", status="failed", model="emoji") == 1


async def test_queues_by_pool_are_what_each_would_take(gateway):
    async with client_of(gateway) as client:
        for seed, priority in enumerate(("normal", "normal", "low", "high")):
            document = {"prompt": PROMPT, "seed": seed, "priority": priority}
            assert (await client.post("/generate", json=document)).status_code == 202

    async def waiting(*workers: tuple[str, int]) -> dict[str, float]:
        for number, (pool, free) in enumerate(workers):
            state = WorkerState(f"w{number}", pool, ("emoji",), free, time.time() + 60)
            await gateway.store.heartbeat(state)
        seen = await scrape(gateway)
        return seen.by("diffusion_gateway_pool_queue_jobs", "pool", model="emoji")

    # No machine of the other kind lives: each would take all.
    assert await waiting() == {"on-demand": 4, "spot": 4}
    assert await waiting(("on-demand", 2)) == {"on-demand": 4, "spot": 3}
    assert await waiting(("on-demand", 2), ("spot", 1)) == {"on-demand": 1, "spot": 3}
    assert await waiting(("on-demand", 0), ("spot", 0)) == {"on-demand": 4, "spot": 4}
