"""A registered version of a model, as TorchServe's describe call shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

READY = "READY"
"""What TorchServe says of a worker that has loaded its model."""


@dataclass(frozen=True)
class Worker:
    """A worker process: `status` is TorchServe's own, memory in bytes."""

    port: str
    status: str
    pid: int

    @property
    def loads(self) -> bool:
        """Whether its process is there and has not loaded the model."""
        return self.pid > 0 and self.status != READY

    @property
    def memory(self) -> int:
        """Resident memory in bytes, now; TorchServe's own figure is up to a minute old."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except (psutil.Error, ValueError):
            return 0


@dataclass(frozen=True)
class Registration:
    """One version of one model. `delay` in ms; `pending` counts requests that no worker has yet."""

    name: str
    version: str
    archive: str
    default: bool
    batch_size: int
    delay: int
    min_workers: int
    continuous: bool
    workers: tuple[Worker, ...]
    pending: int
    capacity: int

    @classmethod
    def of(cls, document: dict[str, Any], default: str) -> Registration:
        """From an element of `GET /models/{name}/all` and the name of the default version."""
        queue = document["jobQueueStatus"]
        return cls(
            name=document["modelName"],
            version=document["modelVersion"],
            archive=document["modelUrl"],
            default=document["modelVersion"] == default,
            batch_size=document["batchSize"],
            delay=document["maxBatchDelay"],
            min_workers=document["minWorkers"],
            continuous=document["continuousBatching"],
            workers=tuple(
                Worker(worker["id"], worker["status"], worker["pid"])
                for worker in document["workers"]
            ),
            pending=queue["pendingRequests"],
            capacity=queue["remainingCapacity"] + queue["pendingRequests"],
        )

    @property
    def is_ready(self) -> bool:
        """Whether every worker it should have is READY."""
        ready = sum(worker.status == READY for worker in self.workers)
        return ready >= max(1, self.min_workers)
