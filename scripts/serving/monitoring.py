"""Prometheus and Alertmanager of this machine, on a system that runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serving.daemon import Daemon
from serving.errors import Trouble
from serving.ports import free_base, holder, is_taken

# Long enough for the objective, which is looked at over 30 days.
_RETENTION = "35d"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Watched:
    """What Prometheus asks.

    Attributes:
        targets: host:port by the name of the scrape job; a job without one is left out.
        labels: on every alert: service and environment, as the tags have them.
        key_file: the gateway's API key, where it asks for one.
        interval_s: between scrapes and between evaluations; None: what the configuration says.
    """

    targets: Mapping[str, str]
    labels: Mapping[str, str]
    key_file: Path | None = None
    interval_s: int | None = None


class Monitoring:
    """Prometheus and Alertmanager, their data in the run folder."""

    def __init__(self, run_folder: Path) -> None:
        run_folder = run_folder.resolve()
        self._folder = run_folder / "monitoring"
        logs = run_folder / "logs"
        self._prometheus = Daemon("Prometheus", self._folder, logs / "prometheus.log")
        self._alertmanager = Daemon("Alertmanager", self._folder, logs / "alertmanager.log")

    def start(
        self,
        config: Path,
        receivers: Path,
        watched: Watched,
        *,
        prometheus_port: int = 9090,
        alertmanager_port: int = 9093,
    ) -> None:
        """Starts both, or has them read their configurations again if they run.

        Args:
            config: a configuration of Prometheus; its targets are replaced.
            receivers: a configuration of Alertmanager, used as it is.
        """
        programs = require_programs()
        ours = {"prometheus": prometheus_port, "alertmanager": alertmanager_port}
        targets = {**watched.targets, **{job: f"{_HOST}:{port}" for job, port in ours.items()}}
        self._folder.mkdir(parents=True, exist_ok=True)
        rendered = self._folder / "prometheus.yml"
        document = render(config, targets, watched)
        rendered.write_text(yaml.safe_dump(document, sort_keys=False))
        rendered.chmod(0o600)
        _check([programs["promtool"], "check", "config", str(rendered)])
        _check([programs["amtool"], "check-config", str(receivers.resolve())])
        wanted = [
            _Wanted(
                self._alertmanager,
                alertmanager_port,
                (
                    programs["alertmanager"],
                    f"--config.file={receivers.resolve()}",
                    f"--storage.path={self._folder / 'alertmanager'}",
                    f"--web.listen-address={_HOST}:{alertmanager_port}",
                    # One process: no cluster to listen for.
                    "--cluster.listen-address=",
                ),
            ),
            _Wanted(
                self._prometheus,
                prometheus_port,
                (
                    programs["prometheus"],
                    f"--config.file={rendered}",
                    f"--storage.tsdb.path={self._folder / 'prometheus'}",
                    f"--storage.tsdb.retention.time={_RETENTION}",
                    f"--web.listen-address={_HOST}:{prometheus_port}",
                ),
            ),
        ]
        _run(wanted)

    def stop(self) -> bool:
        """Ends both; False if none ran."""
        stopped = [self._prometheus.stop(), self._alertmanager.stop()]
        return any(stopped)


@dataclass(frozen=True)
class _Wanted:
    """A program as it is to run."""

    daemon: Daemon
    port: int
    command: Sequence[str]


def _run(wanted: Sequence[_Wanted]) -> None:
    """Starts what does not run, or runs otherwise; the rest reads its files again."""
    others = [one for one in wanted if not one.daemon.runs(one.command)]
    # Both ports first: neither is to run without the other. Data are kept.
    for one in others:
        one.daemon.stop()
        if is_taken(one.port):
            raise Trouble(
                f"Port {one.port} is taken by {holder(one.port)}; name another one, for example "
                f"`make monitoring {one.daemon.name.upper()}_PORT={free_base(9100, count=1)}`."
            )
    for one in wanted:
        if one in others:
            one.daemon.start(one.command, f"http://{_HOST}:{one.port}/-/ready")
        else:
            one.daemon.reload()


def require_programs() -> dict[str, str]:
    """Where the four programs are; `Trouble` says what to install."""
    names = {
        "prometheus": ("prometheus",),
        "promtool": ("promtool",),
        # As Debian calls it, and as its makers do.
        "alertmanager": ("prometheus-alertmanager", "alertmanager"),
        "amtool": ("amtool",),
    }
    found = {
        program: next(filter(None, map(shutil.which, known)), None)
        for program, known in names.items()
    }
    missing = [program for program, path in found.items() if path is None]
    if missing:
        raise Trouble(
            f"{', '.join(missing)} not found: on Debian and Ubuntu, `apt-get install prometheus "
            "prometheus-alertmanager` brings them; elsewhere put Prometheus' and Alertmanager's "
            "programs on the PATH."
        )
    return {program: path for program, path in found.items() if path is not None}


def render(config: Path, targets: Mapping[str, str], watched: Watched) -> dict[str, Any]:
    """The configuration with these targets and absolute paths."""
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    document["rule_files"] = [
        str((config.parent / pattern).resolve()) for pattern in document["rule_files"]
    ]
    document["scrape_configs"] = [
        {**job, "static_configs": [{"targets": [targets[job["job_name"]]]}]}
        for job in document["scrape_configs"]
        if job["job_name"] in targets
    ]
    document["alerting"] = {
        "alertmanagers": [{"static_configs": [{"targets": [targets["alertmanager"]]}]}]
    }
    document["global"]["external_labels"] = dict(watched.labels)
    if watched.interval_s is not None:
        interval = f"{watched.interval_s}s"
        document["global"] |= {"scrape_interval": interval, "evaluation_interval": interval}
        # Never longer than the interval, or Prometheus refuses.
        document["global"]["scrape_timeout"] = interval
    if watched.key_file is not None:
        for job in document["scrape_configs"]:
            if job["job_name"] == "gateway":
                key = str(watched.key_file.resolve())
                job["authorization"] = {"credentials_file": key}
    return document


def _check(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Trouble(f"{command[-1]} is refused: {said[-1] if said else 'no reason was given'}")
