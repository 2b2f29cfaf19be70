"""docs/production.md and the files of config/systemd: units that systemd takes, commands that
exist, and settings that belong together."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from diffusion_gateway.__main__ import app as gateway_app
from diffusion_gateway.settings import GatewaySettings, read_settings
from serving.cli import ROOT
from serving.settings import client_url
from serving.settings import read_settings as read_properties

FOLDER = ROOT / "config/systemd"
PAGE = (ROOT / "docs/production.md").read_text(encoding="utf-8")
INSTALLED = "/opt/torchserve-diffusers"
UNITS = ("torchserve.service", "diffusion-gateway.service")


def service(unit: str) -> dict[str, str]:
    """Its [Service] section; of a key that comes twice the last value."""
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / unit)
    return dict(parser["Service"])


def environment() -> dict[str, str]:
    lines = (FOLDER / "torchserve.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/bin/true")
    for unit in UNITS:
        text = (FOLDER / unit).read_text().replace(INSTALLED, str(tmp_path))
        (tmp_path / unit).write_text(text)
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # It reads the machine's other units too, whose faults are not ours.
    said = [line for line in done.stderr.splitlines() if any(unit in line for unit in UNITS)]
    assert said == []


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_command_that_exists(unit: str) -> None:
    python, *words = shlex.split(service(unit)["ExecStart"])
    assert python == f"{INSTALLED}/.venv/bin/python"
    if words[0] == "-m":
        assert words[:3] == ["-m", "diffusion_gateway", "serve"]
        command, given = gateway_app, words[3:]
    else:
        assert (ROOT / words[0]).is_file()
        assert words[1] == "serve"
        found = importlib.util.spec_from_file_location("server_program", ROOT / words[0])
        assert found is not None
        assert found.loader is not None
        program = importlib.util.module_from_spec(found)
        found.loader.exec_module(program)
        command, given = program.app, words[2:]
    known = options(get_command(command).commands["serve"])  # type: ignore[attr-defined]
    assert {word for word in given if word.startswith("--")} <= known


def test_units_give_more_time_to_end_in_than_is_taken() -> None:
    drain_s = read_settings(FOLDER / "gateway.yaml").drain_s
    assert int(service("diffusion-gateway.service")["TimeoutStopSec"]) >= drain_s + 10
    # A minute for TorchServe, twice five seconds for its workers.
    assert int(service("torchserve.service")["TimeoutStopSec"]) > 70


def test_only_its_own_machine_reaches_torchserve() -> None:
    settings = service("torchserve.service")
    assert (settings["IPAddressDeny"], settings["IPAddressAllow"]) == ("any", "localhost")
    # Either would hide a GPU.
    assert not {"PrivateDevices", "ProtectClock", "DeviceAllow"} & set(settings)


def test_the_gateway_asks_for_keys_and_knows_its_torchserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    settings = read_settings(FOLDER / "gateway.yaml")
    assert settings.authenticates
    assert settings.auth == "on"
    assert settings.public_url is not None
    profile = read_properties(ROOT / "config/production.properties")
    (endpoint,) = settings.endpoints
    assert endpoint.management == profile["management_address"]
    assert endpoint.inference == client_url(profile["inference_address"])
    assert str(endpoint.key_file) == f"{INSTALLED}/run/key_file.json"
    assert str(endpoint.certificate) == environment()["TLS_CERTIFICATE"]
    for place in (settings.store_url, settings.results_url):
        assert f":/var/lib/{service('diffusion-gateway.service')['StateDirectory']}/" in place
    same = {"public_url", "auth", "endpoints", "store_url", "results_url"}
    assert settings.model_dump(exclude=same) == GatewaySettings().model_dump(exclude=same)


def test_the_pages_commands_are_known_to_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    (known,) = re.findall(r"^KNOWN := ((?:.*\\\n)*.*)", makefile, re.MULTILINE)
    used = re.findall(r"(?:`|-u diffusion )make ([a-z-]+)((?: [A-Z_]+=\S*)*)", PAGE)
    assert used
    for target, given in used:
        assert target in targets, target
        assert set(re.findall(r"([A-Z_]+)=", given)) <= set(known.split()), (target, given)


def test_links_of_the_page_lead_somewhere() -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", PAGE):
        found = ROOT / "docs" / target
        assert found.exists(), target
        if anchor:
            titles = re.findall(r"^##+ (.+)$", found.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles
            }
