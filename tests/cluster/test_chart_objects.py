"""What the chart's objects promise: to the cluster, to jobs under way, and to who pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from chart_rig import NAMESPACE, containers, file_of, needs_helm, of_kind, pods, rendered, the
from cluster.chart import STARTS, Object
from containers.models import ARCHIVES, PROFILES, USED, read_models
from diffusion_costs.prices import Prices
from diffusion_costs.tags import KUBERNETES_PREFIX, Tags
from diffusion_gateway.costs.accounts import Accounts
from diffusion_gateway.settings import read_settings
from diffusion_gateway.stores.sqlite_store import SqliteStore
from image_rig import command_of

pytestmark = needs_helm

KSERVE = (("kserve.enabled", True), ("autoscaling.mode", "none"), ("pools.a10g.schedules", []))


def pool_pod(start: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = the(rendered(start), "Deployment", name)["spec"]["template"]["spec"]
    return found


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in containers(pod) if one["name"] == name)
    return found


@pytest.mark.parametrize("start", [*STARTS, "kserve"])
def test_every_pod_is_what_the_restricted_standard_allows(start: str) -> None:
    objects = rendered("production", KSERVE) if start == "kserve" else rendered(start)
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim"}
        for one in containers(pod):
            allowed = one["securityContext"]
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(one["resources"])


def test_a_pool_of_several_gpus(tmp_path: Path) -> None:
    pod = pool_pod("spot", "pool-spot-g5")
    served = container(pod, "torchserve")
    assert served["resources"]["limits"] == {
        "cpu": "32", "memory": "128Gi", "ephemeral-storage": "32Gi", "nvidia.com/gpu": 4,
    }  # fmt: skip
    assert served["resources"]["requests"]["cpu"] == "16"
    assert served["resources"]["requests"]["nvidia.com/gpu"] == 4
    assert pod["nodeSelector"]["nvidia.com/gpu.product"] == "NVIDIA-A10G"
    assert {one["key"] for one in pod["tolerations"]} == {"nvidia.com/gpu", "spot"}
    (shared,) = (one for one in pod["volumes"] if one["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    config = the(rendered("spot"), "ConfigMap", "pool-spot-g5")
    models = tmp_path / "models.json"
    models.write_text(config["data"]["models.json"])
    assert read_models(models)["sdxl"].registered("sdxl") == ["sdxl", "sdxl-2", "sdxl-3", "sdxl-4"]


def test_weights_are_verified_before_anything_serves_them_and_then_read_only() -> None:
    pod = pool_pod("production", "pool-a10g")
    (fetching,) = pod["initContainers"]
    assert fetching["command"] == ["python", "-m", "containers.fetch"]
    served = container(pod, "torchserve")
    # The image's own command, on the folders of the cache that the init container fills.
    assert served["args"][:6] == command_of("worker")
    cache = {one["subPath"]: one for one in served["volumeMounts"] if one["name"] == "models"}
    assert {name: one["mountPath"] for name, one in cache.items()} == {
        name: f"/models/{name}" for name in (ARCHIVES, USED, PROFILES)
    }
    assert [name for name, one in cache.items() if one.get("readOnly")] == [ARCHIVES]
    # Only what fetches has the storage's credentials.
    assert "envFrom" not in served
    assert "envFrom" in pool_pod("development", "pool-cpu")["initContainers"][0]


def test_nobody_reaches_torchserve_but_the_worker_beside_it() -> None:
    objects = rendered("production")
    pod = pool_pod("production", "pool-a10g")
    assert container(pod, "torchserve")["args"][-2:] == ["--listen", "127.0.0.1"]
    for one in of_kind(objects, "Service"):
        assert {port["port"] for port in one["spec"]["ports"]} <= {80, 8000, 8082}
    ingress = the(objects, "NetworkPolicy", "-pools")["spec"]["ingress"]
    assert [{port["port"] for port in rule["ports"]} for rule in ingress] == [{8000, 8082}]
    assert ingress[0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    kserve = rendered("production", KSERVE)
    (service,) = of_kind(kserve, "InferenceService")
    assert service["spec"]["predictor"]["containers"][0]["args"][-1] == "0.0.0.0"
    rules = the(kserve, "NetworkPolicy", "-pools")["spec"]["ingress"]
    assert [{port["port"] for port in rule["ports"]} for rule in rules] == [{8000, 8082}, {8080}]


def test_probes_wait_as_long_as_loading_may_take() -> None:
    for start, name, seconds in (("production", "pool-a10g", 1800), ("development", "cpu", 300)):
        served = container(pool_pod(start, name), "torchserve")
        first = served["startupProbe"]
        assert first["periodSeconds"] * first["failureThreshold"] == seconds
        asked = [
            served[f"{probe}Probe"]["exec"]["command"][2]
            for probe in ("startup", "readiness", "liveness")
        ]
        assert asked == ["started", "ready", "alive"]
        deployment = the(rendered(start), "Deployment", name)
        assert deployment["spec"]["progressDeadlineSeconds"] > seconds


@pytest.mark.parametrize("start", STARTS)
def test_pods_end_after_their_jobs(start: str) -> None:
    objects = rendered(start)
    for one in of_kind(objects, "Deployment"):
        pod = one["spec"]["template"]["spec"]
        config = the(objects, "ConfigMap", one["metadata"]["name"])
        drain_s = file_of(config, "gateway.yaml")["drain_s"]
        assert pod["terminationGracePeriodSeconds"] >= drain_s + 15
        for each in pod["containers"]:
            assert "preStop" in each["lifecycle"]
        if one["metadata"]["name"].endswith("-gateway"):
            continue
        served, worker = pod["containers"]
        assert served["lifecycle"]["preStop"]["exec"]["command"][-3:] == [
            "drained", "--within", str(drain_s),
        ]  # fmt: skip
        ends = worker["lifecycle"]["preStop"]["exec"]["command"]
        assert ends[:4] == ["python", "-m", "diffusion_gateway", "drain"]
        # The command looks for the process where `serve` notes it.
        assert ends[-1] == worker["args"][-1] == "/run/gateway/gateway.pid"


@pytest.mark.parametrize("start", STARTS)
def test_the_gateways_take_their_settings(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered(start)
    monkeypatch.setenv("GATEWAY_STORE_URL", "redis://redis:6379/0")
    for config in of_kind(objects, "ConfigMap"):
        if "gateway.yaml" not in config["data"]:
            continue
        for name, text in config["data"].items():
            (tmp_path / name).write_text(text)
        settings = read_settings(tmp_path / "gateway.yaml")
        assert settings.authenticates
        is_api = config["metadata"]["name"].endswith("-gateway")
        assert settings.role == ("api" if is_api else "worker")
        # The API hears from the store what workers serve.
        assert len(settings.endpoints) == (0 if is_api else 1)
        assert Tags.read(tmp_path / "tags.yaml").components
        assert Prices.read(tmp_path / "prices.yaml")


def test_hard_budgets_hold_where_every_pool_is_priced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_STORE_URL", "redis://redis:6379/0")
    each = {"amount": 20, "period": "day", "tenant": "*", "hard": True}
    objects = rendered("production", (("gateway.budgets", {"budgets": {"each-tenant": each}}),))
    roles = set()
    for config in of_kind(objects, "ConfigMap"):
        if "gateway.yaml" not in config["data"]:
            continue
        for name, text in config["data"].items():
            (tmp_path / name).write_text(text.replace("/etc/diffusion/", f"{tmp_path}/"))
        settings = read_settings(tmp_path / "gateway.yaml")
        store = SqliteStore(tmp_path / "jobs.sqlite")
        made = Accounts(settings, store, CollectorRegistry())
        assert made.budgets.budgets["each-tenant"].hard
        assert made.tariff.currency == "USD"
        roles.add(settings.role)
    assert roles == {"api", "worker"}


def test_secrets_are_named_and_never_written() -> None:
    objects = rendered("spot")
    assert of_kind(objects, "Secret") == []
    names = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for _, pod in pods(objects)
        for one in containers(pod)
        for variable in one.get("env", [])
        if "valueFrom" in variable
    }
    assert names == {"diffusion-redis", "diffusion-checkpoints", "diffusion-webhooks"}
    worker = container(pool_pod("spot", "pool-a10g"), "gateway-worker")
    url = next(one for one in worker["env"] if one["name"] == "GATEWAY_STORE_URL")["value"]
    assert url == "rediss://:$(REDIS_PASSWORD)@redis-master.redis.svc:6379/0"
    # Kubernetes fills in what was named before.
    assert [one["name"] for one in worker["env"]].index("REDIS_PASSWORD") == 0


@pytest.mark.parametrize("start", STARTS)
def test_everything_says_who_pays(start: str) -> None:
    objects = rendered(start)
    tags = Tags()
    for one in objects:
        labels = one["metadata"]["labels"]
        found = {
            name.removeprefix(KUBERNETES_PREFIX): value
            for name, value in labels.items()
            if name.startswith(KUBERNETES_PREFIX)
        }
        assert found["service"] == "diffusion-inference"
        assert found["environment"] == ("development" if start == "development" else "production")
        assert found["component"] in tags.components
        if one["kind"] == "PersistentVolumeClaim":
            assert found["component"] == "model-storage"
        if one["metadata"]["name"].endswith("pool-spot-g5"):
            assert found["model-id"] == "sdxl"
    for one in of_kind(objects, "Deployment"):
        template = one["spec"]["template"]["metadata"]["labels"]
        assert template.items() >= one["spec"]["selector"]["matchLabels"].items()


def test_each_part_survives_a_nodes_drain_and_is_spread() -> None:
    objects = rendered("spot")
    budgets = of_kind(objects, "PodDisruptionBudget")
    for one in of_kind(objects, "Deployment"):
        chosen = one["spec"]["selector"]
        assert [budget["spec"]["selector"] for budget in budgets].count(chosen) == 1
        pod = one["spec"]["template"]["spec"]
        keys = [spread["topologyKey"] for spread in pod["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        classes = {kind["metadata"]["name"] for kind in of_kind(objects, "PriorityClass")}
        assert pod["priorityClassName"] in classes
    notices = the(objects, "NetworkPolicy", "pool-spot-g5-notices")
    assert notices["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "169.254.169.254/32"}}]


@pytest.mark.parametrize(
    ("identity", "reached"),
    [
        ("none", set()),
        ("gke", {("169.254.169.252/32", 988), ("169.254.169.254/32", 80)}),
        ("eks", {("169.254.170.23/32", 80), ("fd00:ec2::23/128", 80)}),
        ("node", {("169.254.169.254/32", 80)}),
    ],
)
@pytest.mark.parametrize("part", ["-gateway", "-pools"])
def test_pods_reach_what_gives_their_identitys_tokens(
    identity: str, reached: set[tuple[str, int]], part: str
) -> None:
    policy = the(
        rendered("production", (("networkPolicy.identity", identity),)), "NetworkPolicy", part
    )
    found = {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", ())
        for port in rule["ports"]
        if "ipBlock" in peer and port["port"] in (80, 988)
    }
    assert found == reached


def test_a_pools_change_restarts_that_pool_only() -> None:
    def marks(objects: list[Object]) -> list[str]:
        return [
            one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for one in of_kind(objects, "Deployment")
        ]

    before = marks(rendered("spot"))
    after = marks(rendered("spot", (("pools.spot-g5.drainSeconds", 60),)))
    assert [one != other for one, other in zip(before, after, strict=True)] == [False, False, True]


def test_the_behaviour_is_the_one_of_the_guides() -> None:
    scaled = the(rendered("production"), "ScaledObject")["spec"]
    assert (scaled["pollingInterval"], scaled["cooldownPeriod"]) == (15, 300)
    expected = yaml.safe_load(
        """
        scaleUp: {stabilizationWindowSeconds: 60,
          policies: [{type: Pods, value: 2, periodSeconds: 60}]}
        scaleDown: {stabilizationWindowSeconds: 300,
          policies: [{type: Pods, value: 1, periodSeconds: 120}]}
        """
    )
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == expected
    changes = (("autoscaling.mode", "hpa"), ("pools.a10g.schedules", []))
    hpa = the(rendered("production", changes), "HorizontalPodAutoscaler", "pool-a10g")["spec"]
    assert hpa["behavior"] == expected
    assert hpa["metrics"][0]["external"]["target"] == {"type": "AverageValue", "averageValue": "5"}
    assert NAMESPACE == "diffusion"
