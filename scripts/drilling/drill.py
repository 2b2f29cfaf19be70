"""The drill: load, a market that takes machines away, and a scaler that asks for new ones."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from drilling.clients import Asked, Clients, Wanted, persistently, references
from drilling.gateway import GatewayProcess
from drilling.pods import GPU_POOL, MODEL, Pod, State
from drilling.redis_server import RedisServer
from drilling.scaling import Scaler, triggers
from drilling.steps import Steps
from serving.ports import free_base

_SAMPLE_S = 2.0
_LEFT_S = 300.0
"""For so long after the last submission jobs may take to end."""

_STEPS = (20, 50, 100)
_SEEDS = 4
_SIZE = 128
"""Above the model's own size, so that pictures take longer than a checkpoint's interval."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drilled. Times in seconds.

    Attributes:
        seconds: for so long jobs come, and machines go.
        pods: endpoints at most.
        load: jobs that come, as a part of what one undisturbed endpoint draws, on average.
        reclaim_s: from one machine that is taken away to the next, on average.
        untold: the part of them that goes without a notice.
        notice_s: how long before they are told.
        front_s: from one killed gateway to the next, on average.
        seed: draws it all.
    """

    seconds: float
    pods: int = 3
    load: float = 1.2
    reclaim_s: float = 25.0
    untold: float = 0.5
    notice_s: float = 30.0
    front_s: float = 75.0
    poll_s: float = 5.0
    jobs_per_pod: int = 5
    down_window_s: float = 45.0
    seed: int = 11


@dataclass(slots=True)
class Record:
    """What came of it. Moments in seconds since 1970."""

    plan: Plan
    began: float = 0.0
    ended: float = 0.0
    capacity: float = 0.0
    states: list[tuple[float, int, str]] = field(default_factory=list)
    events: list[tuple[float, str, int]] = field(default_factory=list)
    depths: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Moment, jobs that wait, jobs that are leased, pods that are wanted."""
    late_drains: int = 0
    jobs: list[Asked] = field(default_factory=list)
    steps: Steps = field(default_factory=Steps)
    usage: dict[str, float] = field(default_factory=dict)
    """Device seconds, by the gateway's own buckets."""

    def counted(self) -> Counter[str]:
        """How often each kind of event came."""
        return Counter(kind for _, kind, _ in self.events)


class Drill:
    """One run.

    Args:
        store: a model store with the demonstration model's archive, in continuous mode.
        folder: for everything that processes write.
        say: told what goes on.
    """

    def __init__(self, plan: Plan, store: Path, folder: Path, say: Callable[[str], None]) -> None:
        self.record = Record(plan)
        self._plan = plan
        self._say = say
        self._draw = random.Random(plan.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self._redis = RedisServer(folder)
        self._settings: dict[str, Any] = {
            "store_url": self._redis.url,
            "results_url": f"file:{folder / 'results'}",
        }
        self.pods = [
            Pod(number, folder, store, self._settings, self._note) for number in range(plan.pods)
        ]
        endpoints = [pod.endpoint for pod in self.pods]
        self._fronts: list[GatewayProcess] = []
        self._urls: list[str] = []
        for name in ("gateway-a", "gateway-b"):
            port = free_base(18950 + 20 * len(self._fronts), count=1)
            own = {"role": "api", "endpoints": endpoints, "port": port}
            self._fronts.append(GatewayProcess(folder / name, {**self._settings, **own}))
            self._urls.append(f"http://127.0.0.1:{port}")
        self._scaler = Scaler(1, plan.pods, plan.jobs_per_pod, plan.down_window_s)
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> Record:
        """The whole drill; whatever comes of it, nothing that it started is left."""
        # One secret for the checkpoints of all workers, which inherit it.
        os.environ.setdefault("DIFFUSION_CHECKPOINT_KEY", secrets.token_hex(16))
        pool = ThreadPoolExecutor(4 * len(self.pods), "drill")
        asyncio.get_running_loop().set_default_executor(pool)
        try:
            with self._redis:
                await self._run()
                await self._account()
        finally:
            for front in self._fronts:
                front.kill()
            await asyncio.gather(*(asyncio.to_thread(pod.kill) for pod in self.pods))
        return self.record

    async def _run(self) -> None:
        plan, record = self._plan, self.record
        self._say("starting")
        for front in self._fronts:
            front.start()
        await asyncio.to_thread(self.pods[0].start)
        wanted = [Wanted(seed, steps, _SIZE) for seed in range(_SEEDS) for steps in _STEPS]
        right, record.capacity = await references(self.pods[0].draw(), wanted)
        each = sum(one.steps for one in wanted) / len(wanted)
        jobs_a_second = plan.load * record.capacity / each
        self._say(f"one endpoint draws {record.capacity:.0f} steps/s; {jobs_a_second:.2f} jobs/s")
        clients = Clients(self._urls, right, lambda at: jobs_a_second * wave(at), self._draw)
        await self._ready()
        record.began = time.time()
        scaling = asyncio.create_task(self._scale())
        market = [asyncio.create_task(one) for one in (self._reclaim(), self._hunt())]
        try:
            await clients.ask(plan.seconds)
        finally:
            for task in market:
                task.cancel()
        self._say("no more jobs come")
        await clients.all_ended(_LEFT_S)
        scaling.cancel()
        await asyncio.gather(*market, scaling, *self._busy, return_exceptions=True)
        record.ended = time.time()
        record.jobs = list(clients.jobs.values())
        record.late_drains = sum(pod.late for pod in self.pods)
        record.steps = Steps.read(pod.worker.steps_log for pod in self.pods)

    async def _ready(self) -> None:
        for url in self._urls:
            async with httpx2.AsyncClient(base_url=url, timeout=5, trust_env=False) as client:
                await persistently([client], "GET", "/readyz")

    async def _reclaim(self) -> None:
        """Takes machines away, one of them at a time, told or not."""
        plan = self._plan
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / plan.reclaim_s))
            there = [pod for pod in self.pods if pod.state in (State.READY, State.STARTING)]
            if not there:
                continue
            pod = self._draw.choice(there)
            told = self._draw.random() >= plan.untold and pod.state is State.READY
            self._take_away(pod, "notice" if told else "kill")

    async def _hunt(self) -> None:
        """Kills a gateway now and then; its deployment starts it again."""
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / self._plan.front_s))
            number = self._draw.randrange(len(self._fronts))
            self._happens("gateway killed", number)
            front = self._fronts[number]
            await asyncio.to_thread(front.kill)
            front.start()

    async def _scale(self) -> None:
        """Has as many pods as the queue asks for."""
        sampled = 0.0
        wanted, polled = 1, 0.0
        while True:
            lengths = await asyncio.to_thread(self._lengths)
            now = time.monotonic()
            if now - polled >= self._plan.poll_s:
                polled, wanted = now, self._scaler.wanted(lengths)
                self._adjust(wanted)
            if now - sampled >= _SAMPLE_S:
                sampled = now
                *lanes, leased = lengths.values()
                self.record.depths.append((time.time(), sum(lanes), leased, wanted))
                self._tell(sum(lanes), leased)
            await asyncio.sleep(1.0)

    def _adjust(self, wanted: int) -> None:
        there = [pod for pod in self.pods if pod.state in (State.READY, State.STARTING)]
        gone = [pod for pod in self.pods if pod.state is State.GONE]
        for pod in gone[: max(0, wanted - len(there))]:
            self._begin(pod.start)
            self._happens("start", pod.number)
        ready = [pod for pod in there if pod.state is State.READY]
        if len(there) > wanted and ready:
            self._take_away(ready[-1], "scale-in")

    def _take_away(self, pod: Pod, how: str) -> None:
        self._happens(how, pod.number)
        if how == "kill":
            self._begin(pod.kill)
        else:
            self._begin(lambda: pod.notice(self._plan.notice_s))

    def _begin(self, action: Callable[[], None]) -> None:
        task = asyncio.create_task(asyncio.to_thread(action))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    def _lengths(self) -> dict[str, int]:
        *lanes, leases = triggers(MODEL, GPU_POOL)
        lengths = {key: int(self._redis.ask("ZCARD", key)) for key in lanes}
        return {**lengths, leases: int(self._redis.ask("SCARD", leases))}

    async def _account(self) -> None:
        """What the gateways have charged, by bucket."""
        from diffusion_gateway.stores import open_usage
        from diffusion_gateway.stores.usage import slot_of

        store = open_usage(self._redis.url)
        await store.open()
        try:
            for row in await store.usage(0, slot_of(time.time()) + 1):
                found = self.record.usage
                found[row.bucket] = found.get(row.bucket, 0.0) + row.micros / 1e6
        finally:
            await store.close()

    def _tell(self, waiting: int, leased: int) -> None:
        states = ", ".join(pod.state for pod in self.pods)
        at = time.time() - self.record.began
        self._say(f"{at:4.0f} s: {waiting} wait, {leased} leased; pods: {states}")

    def _happens(self, kind: str, number: int) -> None:
        self.record.events.append((time.time(), kind, number))

    def _note(self, number: int, state: State) -> None:
        self.record.states.append((time.time(), number, str(state)))


def wave(at: float) -> float:
    """The load at a moment, around 1: ninety busy seconds, sixty quiet ones."""
    return 1.45 if at % 150 < 90 else 0.325
