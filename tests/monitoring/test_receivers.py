"""The delivered receivers in a real Alertmanager: each is told, with its secret, and no other."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from alert_receivers import Mailbox, Posts, http_receiver, mail_receiver
from served import ROOT
from serving.daemon import Daemon
from serving.ports import free_base

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
AMTOOL = shutil.which("amtool")
FOLDER = ROOT / "config" / "alertmanager"
SECRETS = {
    "smtp_password": "word of the mail server",
    "pagerduty_key": "key-of-pagerduty",
    "webhook_token": "token-of-the-webhook",
}

pytestmark = pytest.mark.skipif(
    PROGRAM is None or AMTOOL is None,
    reason="Debian's package prometheus-alertmanager is not installed",
)


@dataclass(frozen=True)
class Told:
    """An Alertmanager with the delivered receivers, and who listens."""

    url: str
    posts: Posts
    mail: Mailbox

    def raise_alert(self, name: str, **labels: str) -> None:
        alert = {
            "labels": {
                "alertname": name,
                "service": "diffusion-inference",
                "environment": "staging",
                **labels,
            },
            "annotations": {
                "summary": "it does not work",
                "description": "Not at all.",
                "runbook_url": f"docs/runbooks.md#{name.lower()}",
            },
            "startsAt": datetime.now(UTC).isoformat(),
        }
        requests.post(f"{self.url}/api/v2/alerts", json=[alert], timeout=10).raise_for_status()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    assert PROGRAM is not None
    with ExitStack() as held:
        posts = held.enter_context(http_receiver())
        smtp = free_base(19400, count=1)
        user = "alerts@example.com"
        mail = held.enter_context(mail_receiver(smtp, user, SECRETS["smtp_password"]))
        config = tmp_path / "alertmanager.yml"
        config.write_text(yaml.safe_dump(on_this_machine(tmp_path, posts.url, smtp)))
        port = free_base(19500, count=1)
        daemon = Daemon("Alertmanager", tmp_path, tmp_path / "alertmanager.log")
        held.callback(daemon.stop)
        command = [PROGRAM, f"--config.file={config}", f"--storage.path={tmp_path / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
        url = f"http://127.0.0.1:{port}"
        daemon.start(command, f"{url}/-/ready")
        yield Told(url, posts, mail)


def on_this_machine(folder: Path, url: str, smtp: int) -> dict[str, Any]:
    """The delivered configuration with this machine's addresses, and without its waits."""
    for name, secret in {**SECRETS, "slack_url": f"{url}/slack"}.items():
        (folder / name).write_text(secret)
    text = (FOLDER / "alertmanager.yml").read_text()
    text = text.replace("/etc/alertmanager/secrets", str(folder))
    text = text.replace("https://incidents.example.com", url)
    document: dict[str, Any] = yaml.safe_load(text)
    document["templates"] = [str(FOLDER / "templates" / "*.tmpl")]
    document["route"]["group_wait"] = "0s"
    document["global"] |= {
        "smtp_smarthost": f"127.0.0.1:{smtp}",
        "smtp_require_tls": False,
        "pagerduty_url": f"{url}/pagerduty",
    }
    return document


@pytest.mark.parametrize("name", ["alertmanager.yml", "local.yml"])
def test_the_delivered_files_are_valid(name: str) -> None:
    assert AMTOOL is not None
    done = subprocess.run(
        [AMTOOL, "check-config", FOLDER / name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_secret_is_in_the_delivered_file() -> None:
    document = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
    secrets = ("password", "key", "api_url", "credentials", "token")

    def named(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key
                yield from named(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from named(inner)

    found = [key for key in named(document) if any(secret in key for secret in secrets)]
    assert len(found) == 4
    assert all(key.endswith("_file") for key in found)


def test_a_critical_alert_wakes_the_one_on_call(told: Told) -> None:
    told.raise_alert("LatencyHigh", severity="critical", topic="service", model="sdxl")
    posted = {one.path: one for one in (told.posts.next() for _ in range(3))}
    assert set(posted) == {"/alerts", "/slack", "/pagerduty"}

    assert posted["/alerts"].authorization == f"Bearer {SECRETS['webhook_token']}"
    (alert,) = posted["/alerts"].document["alerts"]
    assert alert["labels"]["model"] == "sdxl"

    event = posted["/pagerduty"].document
    assert (event["routing_key"], event["event_action"]) == (SECRETS["pagerduty_key"], "trigger")
    assert event["payload"]["summary"] == "[FIRING] LatencyHigh in staging"

    (attachment,) = posted["/slack"].document["attachments"]
    assert attachment["title"] == "[FIRING] LatencyHigh in staging"
    assert attachment["title_link"].endswith("/docs/runbooks.md#latencyhigh")
    assert "it does not work\nNot at all." in attachment["text"]


def test_those_who_pay_hear_of_costs_by_mail(told: Told) -> None:
    told.raise_alert("BudgetSpent50", severity="info", topic="cost", budget="shop")
    message = told.mail.next()
    assert message["To"] == "platform-costs@example.com"
    assert message["Subject"] == "[FIRING] BudgetSpent50 in staging"
    assert told.posts.next().path == "/alerts"

    # One that is graver takes its place; a warning goes to the chat, and nobody is woken.
    told.raise_alert("BudgetSpent75", severity="warning", topic="cost", budget="shop")
    assert told.mail.next()["Subject"] == "[FIRING] BudgetSpent75 in staging"
    assert {told.posts.next().path, told.posts.next().path} == {"/alerts", "/slack"}
    listed = requests.get(f"{told.url}/api/v2/alerts", timeout=10).json()
    silenced = {one["labels"]["alertname"]: one["status"]["state"] for one in listed}
    assert silenced == {"BudgetSpent50": "suppressed", "BudgetSpent75": "active"}
