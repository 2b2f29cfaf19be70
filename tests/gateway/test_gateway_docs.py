"""docs/gateway.md and the settings files say what there is: nothing more, nothing less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import diffusion_gateway.api.app  # noqa: F401 - its errors are to be known
from diffusion_core.errors import ServingError
from diffusion_gateway.__main__ import app
from diffusion_gateway.settings import EndpointSettings, GatewaySettings, read_settings
from serving.cli import RUN_FOLDER
from serving.server import Server
from serving.settings import client_url
from serving.settings import read_settings as read_properties

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/gateway.md").read_text()
LOCAL = ROOT / "config/gateway.yaml"
PRODUCTION = ROOT / "config/gateway-production.yaml"
WORKER = ROOT / "config/gateway-worker.yaml"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_PORT", raising=False)
    monkeypatch.setenv("TLS_CERTIFICATE", "certificate.pem")
    monkeypatch.setenv("TLS_PRIVATE_KEY", "key.pem")


def section(title: str) -> str:
    return re.split(r"^## ", DOCUMENT.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def named(text: str) -> set[str]:
    """The words in back quotes of the first cell of each row of a table."""
    rows = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_setting_is_documented_and_every_documented_one_exists():
    assert named(section("Settings")) == set(GatewaySettings.model_fields)
    (endpoints,) = [row for row in section("Settings").splitlines() if "| `endpoints`" in row]
    assert set(re.findall(r"`(\w+)`", endpoints)) == {"endpoints", *EndpointSettings.model_fields}


def test_the_local_file_names_every_setting_at_its_default():
    document = yaml.safe_load(LOCAL.read_text())
    assert set(document) == set(GatewaySettings.model_fields)
    assert read_settings(LOCAL) == GatewaySettings()


def test_every_setting_of_the_files_has_a_reason():
    for path in (LOCAL, PRODUCTION, WORKER):
        blocks = re.split(r"\n\s*\n", path.read_text())
        bare = [block for block in blocks if not block.lstrip().startswith("#")]
        assert bare == [], path


def test_the_files_for_several_machines_belong_together():
    api, worker = read_settings(PRODUCTION), read_settings(WORKER)
    assert (api.role, api.endpoints, worker.role) == ("api", (), "worker")
    for settings in (api, worker):
        assert settings.authenticates
        assert settings.webhook_secret is None
    for name in (
        *("public_url", "store_url", "results_url", "results_signed"),
        *("prices_file", "tags_file", "budgets_file"),
    ):
        assert getattr(api, name) == getattr(worker, name), name


def test_the_worker_asks_the_torchserve_that_stands_beside_it():
    (endpoint,) = read_settings(WORKER).endpoints
    profile = read_properties(ROOT / "config/production.properties")
    assert endpoint.management == profile["management_address"]
    assert endpoint.inference == client_url(profile["inference_address"])
    # TorchServe writes it to the folder that `make serve` runs it in.
    assert endpoint.key_file == Server(RUN_FOLDER).keys.relative_to(ROOT)


def subclasses(kind: type[ServingError]) -> list[type[ServingError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in subclasses(child))]


def test_every_error_code_is_documented():
    # Other tests of the same run may have loaded errors that no gateway can meet.
    ours = ("diffusion_core.", "diffusion_gateway.")
    codes = {one.code for one in subclasses(ServingError) if one.__module__.startswith(ours)}
    missing = {code for code in codes if f"`{code}`" not in section("Errors")}
    assert missing == set()


def test_every_option_of_the_commands_that_the_document_names_exists():
    known = set(options(get_command(app)))
    asked = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", DOCUMENT))
    assert asked <= known | {"--no-cache"}


def options(command: Any) -> list[str]:
    own = [option for parameter in command.params for option in parameter.opts]
    own += [option for parameter in command.params for option in parameter.secondary_opts]
    return own + [
        option for child in getattr(command, "commands", {}).values() for option in options(child)
    ]


def test_links_within_the_document_lead_somewhere():
    titles = re.findall(r"^###? (.+)$", DOCUMENT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\(#([\w-]+)\)", DOCUMENT)) <= anchors
    for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target.partition("#")[0]).exists(), target
