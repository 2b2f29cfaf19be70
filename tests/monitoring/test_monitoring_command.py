"""What make monitoring says when something is missing, and the configuration it makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from served import ROOT
from serving.errors import Trouble
from serving.monitoring import Monitoring, Watched, render, require_programs
from serving.ports import free_base

CONFIG = ROOT / "config" / "prometheus" / "prometheus.yml"
RECEIVERS = ROOT / "config" / "alertmanager" / "local.yml"
LABELS = {"service": "diffusion-inference", "environment": "staging"}


def command(*arguments: str, run_folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/monitoring.py", *arguments, "--run-folder", str(run_folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/core:{ROOT}/costs:{ROOT}/gateway"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_where_nothing_runs_one_sentence_says_so(tmp_path: Path) -> None:
    refused = command("up", run_folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.strip() == (
        "Nothing runs that could be watched; `make up` or `make serve` starts it."
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused = command("up", "--receivers", "nowhere.yml", run_folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "nowhere.yml: there is no such file."


def test_down_where_nothing_runs_is_quiet(tmp_path: Path) -> None:
    done = command("down", run_folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_missing_programs_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Trouble, match=r"promtool.*apt-get install prometheus prometheus-alertman"):
        require_programs()


def test_the_delivered_configuration_gets_the_targets_that_run() -> None:
    targets = {"torchserve": "127.0.0.1:9102", "prometheus": "p:1", "alertmanager": "a:2"}
    document = render(CONFIG, targets, Watched(targets, LABELS))
    scraped = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in document["scrape_configs"]
    }
    # No gateway runs: one that is asked all the same would be told of as down.
    assert scraped == {job: [target] for job, target in targets.items()}
    (manager,) = document["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["a:2"]}]
    assert document["rule_files"] == [str(CONFIG.parent / "rules" / "*.yaml")]
    assert document["global"]["external_labels"] == LABELS


def test_a_key_goes_to_the_gateway_and_to_nobody_else(tmp_path: Path) -> None:
    key = tmp_path / "key"
    targets = {"gateway": "g:1", "torchserve": "t:2", "alertmanager": "a:3"}
    document = render(CONFIG, targets, Watched(targets, LABELS, key_file=key))
    credentials = {
        job["job_name"]: job["authorization"]["credentials_file"]
        for job in document["scrape_configs"]
        if "authorization" in job
    }
    assert credentials == {"gateway": str(key)}


@pytest.mark.skipif(
    not all(os.access(f"/usr/bin/{name}", os.X_OK) for name in ("promtool", "amtool")),
    reason="Debian's packages prometheus and prometheus-alertmanager are not installed",
)
class TestRefusals:
    """With real programs: nothing is left running when one of both cannot be."""

    def test_a_rule_that_does_not_parse_is_told(self, tmp_path: Path) -> None:
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.read_text().replace("rules/*.yaml", "rules.yaml"))
        (tmp_path / "rules.yaml").write_text("groups: [{name: a, rules: [{record: b, expr: (}]}]")
        targets = {"torchserve": "t:2"}
        with pytest.raises(Trouble, match=r"prometheus\.yml is refused: .*parse"):
            Monitoring(tmp_path).start(config, RECEIVERS, Watched(targets, LABELS))
        assert not Monitoring(tmp_path).stop()

    def test_a_taken_port_is_told(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(Trouble, match=rf"Port {port} is taken .*PROMETHEUS_PORT="):
                Monitoring(tmp_path).start(
                    CONFIG,
                    RECEIVERS,
                    Watched({"torchserve": "t:2"}, LABELS),
                    prometheus_port=port,
                    alertmanager_port=free_base(19600, count=1),
                )
        assert not Monitoring(tmp_path).stop()
