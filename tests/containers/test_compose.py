"""The composition: as the Compose specification has it, and with parts that fit each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from containers.models import read_models
from diffusion_gateway.settings import read_settings
from image_rig import FOLDER
from served import ROOT

FILE = FOLDER / "compose" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def interpolated(text: str) -> str:
    """Variables at their defaults; those that must be given are."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[1] or "given", text)


def parse(**redis: Any) -> None:
    """Takes the composition, with changes to a service, as the specification's own parser does."""
    # Extensions are anchors for the file's own use.
    plain = {name: part for name, part in COMPOSE.items() if not name.startswith("x-")}
    plain["services"] = {**SERVICES, "redis": {**SERVICES["redis"], **redis}}
    PyCompose.from_yaml(interpolated(yaml.safe_dump(plain))).validate()


def test_it_is_a_composition() -> None:
    parse()
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
    models = tmp_path / "models.json"
    text = COMPOSE["configs"]["models"]["content"]
    models.write_text(text.replace("${ARCHIVE_SHA256:?what make archive printed}", "0" * 64))
    assert read_models(models)["emoji"].source == "file:///source"
    # The worker is on TorchServe's loopback, where its settings' own default looks.
    assert SERVICES["worker"]["network_mode"] == "service:torchserve"


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
