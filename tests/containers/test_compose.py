"""The composition: as the Compose specification has it, and with parts that fit each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from containers.models import ARCHIVES, PROFILES, USED, Model, read_models
from diffusion_gateway.settings import read_settings
from image_rig import FOLDER, command_of
from served import ROOT

FILE = FOLDER / "compose" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
GPU: dict[str, Any] = yaml.safe_load(FILE.with_name("compose.gpu.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


VARIABLE = re.compile(r"\$\{(\w+)(?::-([^{}]*)|:\?[^{}]*)\}")


def interpolated(text: str, **given: str) -> str:
    """Variables as given, or at their defaults; those that must be given are."""
    while VARIABLE.search(text):
        text = VARIABLE.sub(lambda found: given.get(found[1], found[2] or "given"), text)
    return text


def merged(below: Any, above: Any) -> Any:
    """Two files of a composition, as far as mappings go: the later one's values count."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = {**below, **above}
    return both | {name: merged(below[name], above[name]) for name in below.keys() & above.keys()}


def parse(document: dict[str, Any] = COMPOSE, **redis: Any) -> None:
    """Takes the composition, with changes to a service, as the specification's own parser does."""
    # Extensions are anchors for the file's own use.
    plain = {name: part for name, part in document.items() if not name.startswith("x-")}
    plain["services"] = merged(document["services"], {"redis": redis})
    PyCompose.from_yaml(interpolated(yaml.safe_dump(plain))).validate()


def models_of(document: dict[str, Any], folder: Path, **given: str) -> dict[str, Model]:
    """The models that a composition serves."""
    path = folder / "models.json"
    path.write_text(interpolated(document["configs"]["models"]["content"], **given))
    return read_models(path)


def test_it_is_a_composition() -> None:
    parse()
    parse(merged(COMPOSE, GPU))
    for wrong in ({"portz": []}, {"read_only": "maybe"}, {"ports": ["a:b:c:d"]}):
        with pytest.raises(ValueError, match=r"services\.redis"):
            parse(**wrong)
    assert set(SERVICES) >= {
        "gateway", "worker", "torchserve", "redis", "storage",
        "prometheus", "alertmanager", "grafana",
    }  # fmt: skip


def test_every_service_is_confined() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ":" in service["image"], name
        assert not service["image"].endswith(":latest"), name
        # Only this machine reaches what is published.
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (FILE.parent / source).exists(), source
                else:
                    assert source in COMPOSE["volumes"], source
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"]
        build = service.get("build")
        if build:
            context = (FILE.parent / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).exists()


def test_gateways_and_worker_take_what_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(COMPOSE["configs"]["gateway"]["content"])
    for name, role, endpoints in (("gateway", "api", 0), ("worker", "worker", 1)):
        with monkeypatch.context() as patch:
            for variable, value in SERVICES[name]["environment"].items():
                patch.setenv(variable, value)
            settings = read_settings(config)
        assert (settings.role, len(settings.endpoints)) == (role, endpoints)
        assert settings.store_url == "redis://redis:6379/0"
        assert float(SERVICES[name]["stop_grace_period"].rstrip("s")) > settings.drain_s
    # The worker is on TorchServe's loopback, where its settings' own default looks.
    assert SERVICES["worker"]["network_mode"] == "service:torchserve"


def test_the_archive_is_the_one_that_was_named(tmp_path: Path) -> None:
    digest = {"ARCHIVE_SHA256": "0" * 64}
    (mount,) = (one for one in SERVICES["fetch-models"]["volumes"] if isinstance(one, dict))
    for name, given in (("emoji", digest), ("sdxl", {**digest, "ARCHIVE_NAME": "sdxl"})):
        found = models_of(COMPOSE, tmp_path, **given)
        assert list(found) == [name]
        assert found[name].source == f"file://{mount['target']}"
        folder = (FILE.parent / interpolated(mount["source"], **given)).resolve()
        assert folder == ROOT / "model_store" / name


def test_on_gpus_torchserve_has_them_and_cudas_torch(tmp_path: Path) -> None:
    served = merged(COMPOSE, GPU)["services"]["torchserve"]
    cpu = SERVICES["torchserve"]
    assert (cpu["build"]["args"]["DEVICE"], "deploy" in cpu) == ("cpu", False)
    assert served["build"] == {**cpu["build"], "args": {"DEVICE": "cuda", "TORCH_INDEX": ""}}
    assert served["image"] == cpu["image"].replace("-cpu", "")
    (devices,) = served["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["driver"], devices["capabilities"]) == ("nvidia", ["gpu"])
    # A registration for each GPU.
    given = {"ARCHIVE_SHA256": "0" * 64, "ARCHIVE_NAME": "sdxl"}
    for count in ({}, {"GPUS": "4"}):
        found = models_of(GPU, tmp_path, **given, **count)
        assert str(found["sdxl"].registrations) == interpolated(devices["count"], **count)
        assert found["sdxl"].source == models_of(COMPOSE, tmp_path, **given)["sdxl"].source


def test_archives_are_served_from_where_they_are_put() -> None:
    fetching, serving = SERVICES["fetch-models"], SERVICES["torchserve"]
    cache = PurePosixPath(fetching["command"][-1])
    for service in (fetching, serving):
        assert f"models:{cache}" in service["volumes"]
    # Of the image's own, which one who runs it alone gets too.
    assert "command" not in serving
    assert command_of("worker")[2:] == [
        "--cache", str(cache / ARCHIVES), "--used", str(cache / USED),
    ]  # fmt: skip
    assert serving["environment"]["DIFFUSION_PROFILE_DIR"] == str(cache / PROFILES)
    assert command_of("worker")[1] == serving["configs"][0]["target"] == fetching["command"][1]


def test_redis_keeps_what_was_accepted() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {
        "--appendonly": "yes", "--appendfsync": "always", "--maxmemory-policy": "noeviction",
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = yaml.safe_load((FILE.parent / "prometheus.yml").read_text())
    # Where the composition mounts them.
    config["rule_files"] = [str(ROOT / "config" / "prometheus" / "rules" / "*.yaml")]
    key = tmp_path / "key"
    key.write_text("key")
    config["scrape_configs"][0]["authorization"]["credentials_file"] = str(key)
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    checked = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    delivered = yaml.safe_load((ROOT / "config" / "prometheus" / "prometheus.yml").read_text())
    jobs = [one["job_name"] for one in config["scrape_configs"]]
    assert jobs == [one["job_name"] for one in delivered["scrape_configs"]]
    assert config["global"] == delivered["global"]
