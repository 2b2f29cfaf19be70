"""The TorchServe process: started, found again, stopped, and swept up after."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import requests

from serving.certificate import refusal, unfit
from serving.environment import bare_interpreter, server_environment
from serving.errors import Trouble
from serving.management import Management
from serving.notes import forget_notes, read_notes
from serving.ports import require_free
from serving.settings import client_url, complete, ports, read_settings
from serving.variant import remove_variants

# A Unix socket's path may be 103 bytes long on macOS; TorchServe adds `/.ts.sock.9000`.
_LONGEST_TEMPORARY = 85
_MAIN_CLASS = "org.pytorch.serve.ModelServer"


@dataclass(frozen=True)
class Running:
    """What later commands have to know of a server that was started."""

    pid: int
    inference: str
    management: str
    metrics: str
    certificate: str | None
    tokens: bool
    model_store: str
    profile: str = ""
    port: int | None = None


class Server:
    """TorchServe with a folder of its own for logs, keys, temporary files and state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.logs = self.folder / "logs"
        self.keys = self.folder / "key_file.json"
        self.temporary = self.folder / "tmp"
        if len(str(self.temporary)) > _LONGEST_TEMPORARY:
            name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
            self.temporary = Path(tempfile.gettempdir()) / f"torchserve-{name}"
        self._state = self.folder / "server.json"
        self._config = self.folder / "config.properties"

    def start(
        self, profile: Path, model_store: Path, port: int | None = None, python: Path | None = None
    ) -> Running:
        """Starts TorchServe in the background; returns when its APIs answer.

        Args:
            profile: a config.properties; unknown keys are refused.
            model_store: folder of archives.
            port: the first of five ports in a row; None takes the profile's.
            python: the workers' interpreter; None makes a bare one.
        """
        settings = complete(read_settings(profile), port=port, folder=profile.resolve().parents[1])
        self.sweep()
        require_free(ports(settings))
        remove_variants(model_store, {note.archive for note in read_notes(self.folder)})
        for place in (self.logs, self.temporary, model_store):
            place.mkdir(parents=True, exist_ok=True)
        self._config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self.keys.unlink(missing_ok=True)
        self._launch(
            python or bare_interpreter(self.folder / "python"),
            model_store,
            profile.parent / "log4j2.xml",
        )
        running = Running(
            pid=self._launched(),
            inference=client_url(settings["inference_address"]),
            management=client_url(settings["management_address"]),
            metrics=client_url(settings["metrics_address"]),
            certificate=settings.get("certificate_file"),
            tokens=settings.get("disable_token_authorization") != "true",
            model_store=str(model_store.resolve()),
            profile=str(profile.resolve()),
            port=port,
        )
        self._state.write_text(json.dumps(asdict(running)))
        self._wait_until_up(running)
        return running

    def find(self) -> Running | None:
        """The server started from this folder, if it still runs."""
        running = self._last()
        return running if running is not None and self._is_alive(running.pid) else None

    def died(self) -> Running | None:
        """The server started from this folder, if it ended and nobody stopped it."""
        last = self._last()
        return last if last is not None and not self._is_alive(last.pid) else None

    def require(self) -> Running:
        """The running server; `Trouble` where there is none."""
        running = self.find()
        if running is None:
            raise Trouble("TorchServe is not running; `make serve` starts it, `make up` too.")
        return running

    def management(self) -> Management:
        """A client of the running server."""
        running = self.require()
        return Management(
            running.management,
            running.inference,
            certificate=running.certificate,
            keys=self.keys if running.tokens else None,
        )

    def metrics(self) -> str:
        """The metrics in Prometheus' text format."""
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.require().metrics}/metrics", timeout=10).text

    def wait(self) -> None:
        """Returns never: `Trouble` when TorchServe ends."""
        running = self.require()
        while self._is_alive(running.pid):
            time.sleep(0.5)
        raise Trouble(f"TorchServe has ended: {self._last_words()}")

    def stop(self, patience: float = 60.0, *, forget: bool = True) -> bool:
        """Ends TorchServe and its workers and removes what they unpacked; False if none ran.

        The next start brings back what was served, as after a death, unless it is to `forget`.
        """
        running = self.find()
        if running is not None:
            server = psutil.Process(running.pid)
            server.terminate()
            _wait_or_kill([server], patience)
        self.sweep()
        if forget:
            last = self._last()
            if last is not None:
                remove_variants(Path(last.model_store))
            self._state.unlink(missing_ok=True)
            forget_notes(self.folder)
        return running is not None

    def sweep(self) -> None:
        """Ends workers that a killed server left behind and removes its temporary files."""
        marks = (str(self.temporary), str(self.folder / "python"))
        orphans = [
            process
            for process in psutil.process_iter(["cmdline"])
            if "--sock-name" in (command := process.info["cmdline"] or [])
            and any(part.startswith(marks) for part in command)
        ]
        for orphan in orphans:
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.terminate()
        _wait_or_kill(orphans, patience=5)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _last(self) -> Running | None:
        try:
            return Running(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _launch(self, python: Path, model_store: Path, log_config: Path) -> None:
        command: list[str | Path] = [python, "-m", "ts.model_server", "--start", "--ncs"]
        command += ["--ts-config", self._config, "--model-store", model_store.resolve()]
        command += ["--log-config", log_config.resolve()]
        with (self.logs / "console.log").open("w") as console:
            subprocess.run(
                command,
                cwd=self.folder,
                env=server_environment(self.temporary, self.logs),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            )

    def _launched(self) -> int:
        try:
            return int((self.temporary / ".model_server.pid").read_text())
        except (OSError, ValueError):
            raise Trouble(f"TorchServe did not start: {self._last_words()}") from None

    def _wait_until_up(self, running: Running, patience: float = 60.0) -> None:
        management = self.management()
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if not self._is_alive(running.pid):
                raise Trouble(f"TorchServe did not start: {self._last_words()}")
            try:
                management.models()
                return
            except (requests.ConnectionError, OSError, Trouble) as error:
                refused = refusal(error)
            if refused is not None:
                # It would go on, and no tool could speak to it.
                self.stop()
                raise unfit(refused, running.certificate)
            time.sleep(0.2)
        raise Trouble(f"TorchServe does not answer after {patience:.0f} s: {self._last_words()}")

    def _is_alive(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            # The settings file tells this server from another that was given the same pid.
            ours = {_MAIN_CLASS, str(self._config)} <= set(process.cmdline())
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _last_words(self) -> str:
        lines = (self.logs / "console.log").read_text(errors="replace").splitlines()
        said = [line for line in lines if line.strip() and not line.lstrip().startswith("at ")]
        return f"{said[-1] if said else 'it said nothing'} ({self.logs})"


def _wait_or_kill(processes: list[psutil.Process], patience: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
