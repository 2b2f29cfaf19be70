"""A policy as Kubernetes has it: KEDA's ScaledObject, or a HorizontalPodAutoscaler of one size.

Queries use the metrics of docs/metrics.md. A trigger of type AverageValue asks for as many replicas
as its query's value holds thresholds, and of several triggers the largest count holds: KEDA's and
Kubernetes' own rules, which the simulation follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Any

import yaml

from diffusion_costs.scaling.policies import (
    ByPendingSteps,
    ByQueueLength,
    ByThresholds,
    ByTimeOfDay,
    ByUse,
    ByWork,
    Fixed,
    Policy,
    Predictive,
)
from diffusion_costs.scaling.settings import Behaviour, ScalingSettings

Trigger = dict[str, Any]

_LIVES = "(time() - diffusion_worker_heartbeat_timestamp_seconds{{model='{model}'}} < 60)"
_PENDING = (
    "sum(diffusion_pending_steps{{model='{model}'}} and on (model, worker, instance) "
    + _LIVES
    + ")"
)
_WAITING_WORK = "sum(max by (model, lane) (diffusion_gateway_queue_work{{model='{model}'}}))"
_WAITING = (
    "sum(max by (model, lane) "
    "(diffusion_gateway_queue_jobs{{model='{model}', state='waiting'}})) or vector(0)"
)
_BUSY = "sum(rate(diffusion_device_busy_seconds_total{{model='{model}'}}[{window}]))"
_HELD = "sum(rate(diffusion_device_held_seconds_total{{model='{model}'}}[{window}]))"
_ACCEPTED = "sum(rate(diffusion_gateway_jobs_accepted_total{{model='{model}'}}[{window}]{offset}))"


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled, and who knows the figures.

    Attributes:
        deployment, namespace: of the model servers.
        model: the label of its metrics; `pixels`: of a picture, in which queued work is counted.
        prometheus: the server's address inside the cluster.
        work: steps that a request asks for on average, in the trace.
        begins_min: minutes after midnight at which the trace's second 0 is, in `timezone`.
    """

    deployment: str
    namespace: str
    model: str
    prometheus: str
    pixels: int
    work: float
    begins_min: int = 0
    timezone: str = "Etc/UTC"


def manifest(
    policy: Policy,
    target: Target,
    settings: ScalingSettings,
    comments: Sequence[str] = (),
    *,
    spot: bool = False,
) -> str:
    """The policy as YAML that `kubectl apply` takes, under lines of comment.

    A timetable of the same count all day long is a fleet of one size. An autoscaler only counts
    pods, so with `spot` it is the same document, and a comment says where the pods are to run.
    """
    if isinstance(policy, ByTimeOfDay) and len(set(policy.days[-1])) == 1:
        policy = Fixed(policy.days[-1][0], policy.behaviour)
    if isinstance(policy, Fixed):
        document = _of_one_size(policy, target)
        comments = [*comments, "One size: the autoscaler only keeps the count."]
    else:
        document = _scaled_object(policy, target, settings)
    if spot:
        comments = [*comments, *_where_pods_run(settings.spot.on_demand)]
    head = "".join(f"# {line}\n" for line in comments)
    return head + yaml.safe_dump(document, sort_keys=False, width=100)


def triggers(policy: Policy, target: Target, settings: ScalingSettings) -> list[Trigger]:
    """What asks for replicas."""
    if isinstance(policy, ByThresholds):
        # 2 asks for twice as many and 0.5 for half: the behaviour lets one come or go.
        use = f"({_BUSY} / {_HELD})"
        asked = f"1 + ({use} >= bool {policy.up:g}) - 0.5 * ({use} < bool {policy.down:g})"
        window = f"{settings.use_window_s:.0f}s"
        query = asked.format(model=target.model, window=window)
        return [_prometheus(target, query, 1, kind="Value")]
    if isinstance(policy, ByQueueLength):
        return [_prometheus(target, _WAITING.format(model=target.model), policy.per_replica)]
    if isinstance(policy, ByPendingSteps):
        return [_pending(target, policy.steps_per_s * policy.within_s)]
    if isinstance(policy, ByUse):
        window = f"{settings.use_window_s:.0f}s"
        query = _BUSY.format(model=target.model, window=window)
        return [_prometheus(target, query, policy.target)]
    each = f"{settings.rate_window_s:.0f}s"
    if isinstance(policy, ByWork):
        accepted = _ACCEPTED.format(model=target.model, window=each, offset="")
        requests = policy.steps_per_s * policy.target / target.work
        backlog = _pending(target, policy.steps_per_s * policy.within_s)
        return [_prometheus(target, accepted, requests), backlog]
    if isinstance(policy, Predictive):
        requests = policy.steps_per_s * policy.target / target.work
        ahead = f"{policy.ahead_s:.0f}"
        offset = f" offset {24 * 3600 - policy.ahead_s:.0f}s"
        now = _ACCEPTED.format(model=target.model, window=each, offset="")
        yesterday = _ACCEPTED.format(model=target.model, window=each, offset=offset)
        queries = (now, f"predict_linear(({now})[30m:{each}], {ahead})", yesterday)
        return [_prometheus(target, query, requests) for query in queries]
    if isinstance(policy, ByTimeOfDay):
        return _hours(policy, target)
    raise TypeError(f"{policy.name} has no manifest")


def _pending(target: Target, steps: float) -> Trigger:
    waiting = f"({_WAITING_WORK} or vector(0)) / {target.pixels}"
    query = f"{waiting} + ({_PENDING} or vector(0))".format(model=target.model)
    return _prometheus(target, query, steps)


def _prometheus(
    target: Target, query: str, threshold: float, kind: str = "AverageValue"
) -> Trigger:
    return {
        "type": "prometheus",
        "metricType": kind,
        "metadata": {
            "serverAddress": target.prometheus,
            "query": query,
            "threshold": f"{threshold:.6g}",
            "ignoreNullValues": "true",
        },
    }


def _hours(policy: ByTimeOfDay, target: Target) -> list[Trigger]:
    """A cron trigger for each run of hours with a count above the least, begun early enough."""
    early = ceil(policy.ahead_s / 60)
    found = []
    minute = target.begins_min
    for replicas, hours in groupby(policy.days[-1]):
        begin, minute = minute - early, minute + 60 * len(list(hours))
        if replicas <= policy.least:
            continue
        found.append(
            {
                "type": "cron",
                "metadata": {
                    "timezone": target.timezone,
                    "start": _daily(begin),
                    "end": _daily(minute),
                    "desiredReplicas": str(replicas),
                },
            }
        )
    return found


def _daily(minute: int) -> str:
    """A minute of the day, or of a day beside it, as cron has it."""
    return f"{minute % 60} {minute // 60 % 24} * * *"


def _where_pods_run(on_demand: int) -> list[str]:
    return [
        f"Spot: the count holds all replicas, {on_demand} of them on demand and the others spot.",
        f"Give the Deployment's pods {on_demand} on-demand machine(s), which they prefer, and a",
        "group of spot machines that grows: docs/costs/scaling.md, Spot machines.",
    ]


def _scaled_object(policy: Policy, target: Target, settings: ScalingSettings) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": target.deployment, "namespace": target.namespace},
        "spec": {
            "scaleTargetRef": {"name": target.deployment},
            "pollingInterval": round(settings.poll_s),
            "cooldownPeriod": round(policy.behaviour.down_window_s),
            "minReplicaCount": policy.least,
            "maxReplicaCount": settings.most,
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": _behaviour(policy.behaviour)}
            },
            "triggers": triggers(policy, target, settings),
        },
    }


def _of_one_size(policy: Fixed, target: Target) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": target.deployment, "namespace": target.namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": target.deployment,
            },
            "minReplicas": policy.replicas,
            "maxReplicas": policy.replicas,
            "behavior": _behaviour(policy.behaviour),
        },
    }


def _behaviour(behaviour: Behaviour) -> dict[str, Any]:
    def rules(window: float, pods: int, period: float) -> dict[str, Any]:
        return {
            "stabilizationWindowSeconds": round(window),
            "policies": [{"type": "Pods", "value": pods, "periodSeconds": round(period)}],
        }

    return {
        "scaleUp": rules(behaviour.up_window_s, behaviour.up_pods, behaviour.up_period_s),
        "scaleDown": rules(behaviour.down_window_s, behaviour.down_pods, behaviour.down_period_s),
    }
