"""What scales pods, asked of a real Redis and a real Prometheus as KEDA and the HPA ask."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from chart_rig import NAMESPACE, file_of, needs_helm, rendered, the
from cluster.chart import KUBERNETES
from diffusion_gateway.job import Job, Lane, Status, new_id
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.stores import open_store
from diffusion_gateway.stores.store import Admission, JobStore, WorkerState
from drilling.redis_server import RedisServer
from prometheus_rig import PROGRAM, exposing, prometheus

pytestmark = [
    needs_helm,
    pytest.mark.skipif(PROGRAM is None, reason="Debian's package prometheus is not installed"),
]

WAITING = {Lane.URGENT: 1, Lane.NORMAL: 4, Lane.LOW: 2}
LEASED = {"a10g": 2, "spot-g5": 30}
UNDER_WAY = sum(LEASED.values())
HERE = {"namespace": NAMESPACE}

POD = """\
gpu_utilization_percent{{gpu_id="0"}} {first}
gpu_utilization_percent{{gpu_id="1"}} {second}
diffusion_pending_steps{{model="sdxl",worker="0"}} {steps}
diffusion_pending_steps{{model="sdxl",worker="1"}} 5
diffusion_pending_steps{{model="sdxl",worker="2"}} 9000
diffusion_worker_heartbeat_timestamp_seconds{{model="sdxl",worker="0"}} {now}
diffusion_worker_heartbeat_timestamp_seconds{{model="sdxl",worker="1"}} {now}
diffusion_worker_heartbeat_timestamp_seconds{{model="sdxl",worker="2"}} {long_ago}
"""


RECORDED = "".join(
    f'gpu_pool:diffusion_jobs:sum{{gpu_pool="{pool}",namespace="{NAMESPACE}"}} {number}\n'
    for pool, number in (("a10g", 7), ("spot-g5", 9))
)


async def submit(store: JobStore, lane: Lane) -> None:
    fields = {"prompt": "owl", "num_inference_steps": 20, "seed": 7, "num_images": 1}
    job = Job(
        id=new_id(), tenant="local", model="sdxl", steps=20, work=20 * 4096.0, fields=fields,
        lane=lane, submitted_at=time.time(),
    )  # fmt: skip
    await store.submit(job, Admission())


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """Jobs under way in two pools, seven that wait."""
    with RedisServer(tmp_path) as server:
        async with opened(server) as store:
            for lane, number in WAITING.items():
                for _ in range(number + (UNDER_WAY if lane is Lane.NORMAL else 0)):
                    await submit(store, lane)
        for pool, number in LEASED.items():
            async with opened(server, pool) as store:
                for _ in range(number):
                    assert await store.claim(pool, "sdxl", [Lane.NORMAL], 60.0)
        yield server


@asynccontextmanager
async def opened(server: RedisServer, pool: str | None = None) -> AsyncIterator[JobStore]:
    """The store as a worker of that pool opens it."""
    store = open_store(server.url, pool)
    await store.open()
    yield store
    await store.close()


async def told(server: RedisServer, *workers: WorkerState, in_hand: int = 0) -> str:
    """What a gateway of that store exposes, whose own worker has so many jobs in hand."""
    metrics = Metrics()
    metrics.in_hand(in_hand)
    async with opened(server) as store:
        for state in workers:
            await store.heartbeat(state)
        return (await metrics.scrape(store)).decode()


def triggers(start: str = "spot", pool: str = "pool-a10g") -> dict[str, Any]:
    scaled = the(rendered(start), "ScaledObject", pool)
    return {one["name"]: one for one in scaled["spec"]["triggers"]}


def length(server: RedisServer, trigger: dict[str, Any]) -> int:
    """As KEDA's redis scaler asks: by the type that the key has, 0 where there is none."""
    key = trigger["metadata"]["listName"]
    kind = server.ask("TYPE", key)
    command = {"zset": "ZCARD", "set": "SCARD", "list": "LLEN", "hash": "HLEN", "none": "LLEN"}
    return int(server.ask(command[kind], key))


def wanted(trigger: dict[str, Any], value: float) -> int:
    """Pods that the HPA makes of an average value."""
    metadata = trigger["metadata"]
    return math.ceil(value / float(metadata.get("threshold") or metadata["listLength"]))


def ask(url: str, query: str) -> float | None:
    """As KEDA's prometheus scaler asks: one value or none."""
    answer = requests.get(f"{url}/api/v1/query", params={"query": query}, timeout=10)
    assert answer.ok, answer.text
    result = answer.json()["data"]["result"]
    assert len(result) <= 1, f"{query}: {result}"
    return float(result[0]["value"][1]) if result else None


def asked_of_redis(server: RedisServer, pool: str) -> dict[str, int]:
    return {
        name: length(server, one)
        for name, one in triggers(pool=f"pool-{pool}").items()
        if one["type"] == "redis"
    }


async def test_redis_tells_what_waits_and_what_is_under_way(redis: RedisServer) -> None:
    found = asked_of_redis(redis, "a10g")
    assert found == {
        "queue-sdxl-0": 0, "queue-sdxl-1": 1, "queue-sdxl-2": 4, "queue-sdxl-3": 2, "leases": 2,
    }  # fmt: skip
    assert [wanted(triggers()[name], number) for name, number in found.items()] == [0, 1, 2, 1, 1]
    # Nothing waits any more, and pods stay for what is under way.
    async with opened(redis, "a10g") as store:
        while job := await store.claim("worker", "sdxl", list(Lane), 60.0):
            last = job
        under_way = sum(WAITING.values()) + LEASED["a10g"]
        asked = triggers()
        assert length(redis, asked["leases"]) == under_way
        assert length(redis, asked["queue-sdxl-2"]) == 0
        # What a worker hands back is waiting again, ahead of the others.
        assert await store.hand_back(last, blamed=False)
        assert length(redis, asked["leases"]) == under_way - 1
        assert length(redis, asked["queue-sdxl-0"]) == 1


async def test_no_pool_grows_for_what_another_one_draws(redis: RedisServer) -> None:
    """Thirty jobs on spot machines, which serve what on-demand machines serve too."""
    async with opened(redis, "a10g") as store:
        while job := await store.claim("a10g", "sdxl", list(Lane), 60.0):
            assert await store.end(job, Status.FAILED, error={})
        assert await store.reap(0.0) == []
    for pool, pods in (("a10g", 1), ("spot-g5", 3)):
        asked = triggers(pool=f"pool-{pool}")
        found = asked_of_redis(redis, pool)
        assert found.pop("leases") == LEASED[pool]
        assert set(found.values()) == {0}
        # spot-g5: four registrations a pod, three jobs each.
        assert wanted(asked["leases"], LEASED[pool]) == pods


def test_workers_count_under_the_name_that_their_pool_is_scaled_by() -> None:
    for pool in LEASED:
        settings = file_of(the(rendered("spot"), "ConfigMap", f"pool-{pool}"), "gateway.yaml")
        key = triggers(pool=f"pool-{pool}")["leases"]["metadata"]["listName"]
        assert key == f"diffusion:{{jobs}}:leases:{settings['gpu_pool']}"


def adapted() -> str:
    """What prometheus-adapter asks for the chart's HPA."""
    changes = (("autoscaling.mode", "hpa"), ("pools.a10g.schedules", []))
    hpa = the(rendered("production", changes), "HorizontalPodAutoscaler", "pool-a10g")
    metric = hpa["spec"]["metrics"][0]["external"]["metric"]
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"][
        "external"
    ]
    assert rule["name"]["as"] == metric["name"]
    matchers = {"namespace": NAMESPACE, **metric["selector"]["matchLabels"]}
    query: str = rule["metricsQuery"]
    for name, text in {
        "Series": "gpu_pool:diffusion_jobs:sum",
        "LabelMatchers": ",".join(f'{key}="{value}"' for key, value in matchers.items()),
        "GroupBy": "namespace",
    }.items():
        query = query.replace(f"<<.{name}>>", text)
    return query


def test_the_chart_records_for_the_hpa_what_keda_asks() -> None:
    groups = the(rendered("spot"), "PrometheusRule")["spec"]["groups"]
    for rule in groups[-1]["rules"]:
        assert rule["record"] == "gpu_pool:diffusion_jobs:sum"
        asked = triggers(pool=f"pool-{rule['labels']['gpu_pool']}")["jobs"]
        assert rule["expr"] == asked["metadata"]["query"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "prometheus"
    made.mkdir()
    return made


def scraped(folder: Path, *texts: tuple[str, str, dict[str, str]]) -> Iterator[str]:
    """A Prometheus that has scraped these: job, text and labels each."""
    with ExitStack() as stack:
        targets: dict[str, list[str]] = {}
        labels = {}
        for job, text, own in texts:
            address = stack.enter_context(exposing(text))
            targets.setdefault(job, []).append(address)
            labels[address] = own
        url = stack.enter_context(prometheus(folder, targets, labels=labels))
        end = time.monotonic() + 20
        while ask(url, "sum(up)") != len(texts):
            assert time.monotonic() < end
            time.sleep(0.2)
        yield url


async def test_every_query_returns_the_number_that_it_should(
    redis: RedisServer, folder: Path
) -> None:
    waits = sum(WAITING.values())
    alone = await told(redis)
    later = time.time() + 60
    both = await told(
        redis,
        WorkerState("a", "on-demand", ("sdxl",), 1, later),
        WorkerState("b", "spot", ("sdxl",), 4, later),
    )
    redis.clear()
    empty = await told(redis)
    silent = "diffusion_gateway_store_up 0\n"
    heard = {"now": time.time(), "long_ago": time.time() - 600}
    pods = [
        ("torchserve", POD.format(first=90, second=70, steps=395, **heard), {"pod": "a"}),
        ("torchserve", POD.format(first=100, second=60, steps=400, **heard), {"pod": "b"}),
    ]
    own = {**HERE, "gpu_pool": "a10g"}
    spot = {**HERE, "gpu_pool": "spot-g5"}
    texts = [
        # Two gateways tell of one store.
        *(("gateway", alone, {**HERE, "pod": pod}) for pod in ("api-1", "api-2")),
        # The workers beside each pod; two share what spot machines draw.
        ("gateway", await told(redis, in_hand=LEASED["a10g"]), {**own, "pod": "a"}),
        ("gateway", await told(redis, in_hand=20), {**spot, "pod": "c"}),
        ("gateway", await told(redis, in_hand=10), {**spot, "pod": "d"}),
        ("gateway", both, {"namespace": "both"}),
        ("gateway", empty, {"namespace": "empty"}),
        ("gateway", silent, {"namespace": "silent"}),
        *((job, text, {**own, **labels}) for job, text, labels in pods),
        # What the chart's rules have recorded, by then.
        ("gateway", RECORDED, {}),
    ]
    for url in scraped(folder, *texts):
        asked = triggers()
        queries = {
            name: one["metadata"]["query"]
            for name, one in asked.items()
            if "query" in one["metadata"]
        }
        assert set(queries) == {"jobs", "pending-steps", "gpu-utilization"}
        # No machine lives: whichever comes first may take all of it.
        assert ask(url, queries["jobs"]) == waits + LEASED["a10g"]
        assert wanted(asked["jobs"], waits + LEASED["a10g"]) == 3
        theirs = triggers(pool="pool-spot-g5")["jobs"]["metadata"]["query"]
        assert ask(url, theirs) == waits + LEASED["spot-g5"]
        # Of a pool's pods only, a dead worker's apart: 395 + 5 and 400 + 5 steps; 80 % of one and
        # 80 % of the other.
        assert ask(url, queries["pending-steps"]) == 805
        assert wanted(asked["pending-steps"], 805) == 3
        assert ask(url, queries["gpu-utilization"]) == 160
        assert wanted(asked["gpu-utilization"], 160) == 3

        def elsewhere(namespace: str, pool: str = "pool-a10g") -> float | None:
            query = triggers(pool=pool)["jobs"]["metadata"]["query"]
            return ask(url, query.replace(f'"{NAMESPACE}"', f'"{namespace}"'))  # noqa: B023

        # Both kinds of machines live and have room: each is asked for its own.
        assert elsewhere("both") == WAITING[Lane.URGENT]
        assert elsewhere("both", "pool-spot-g5") == waits - WAITING[Lane.URGENT]
        # No job is no pod; a store that is silent, or no gateway at all, is nothing known.
        assert elsewhere("empty") == 0
        assert elsewhere("silent") is None
        assert elsewhere("nowhere") is None
        # A pool without pods: KEDA takes that for 0, and leaves pods alone where nothing is known.
        others = triggers(pool="pool-spot-g5")
        for name in ("pending-steps", "gpu-utilization"):
            assert ask(url, others[name]["metadata"]["query"]) is None
            assert others[name]["metadata"]["ignoreNullValues"] == "true"
        assert others["jobs"]["metadata"]["ignoreNullValues"] == "false"
        assert ask(url, adapted()) == 7
