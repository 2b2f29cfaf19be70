"""TorchServe in the foreground, with its models registered: the worker container's program."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated

import requests
import typer

from containers.models import Model, read_models
from containers.usage import Marks
from serving.cli import ROOT, program, run
from serving.environment import bare_interpreter, server_environment
from serving.errors import Trouble
from serving.management import Management
from serving.settings import client_url, complete, read_settings

app = program("TorchServe for a container.")

_PROFILE = ROOT / "config" / "containers" / "worker" / "config.properties"
_START_S = 120.0
_END_S = 20.0
_LOOK_S = 0.2


@app.command()
def serve(
    models: Annotated[Path, typer.Option(help="JSON: {NAME: {source, sha256, registrations}}.")],
    cache: Annotated[Path, typer.Option(help="The folder with the archives.")],
    listen: Annotated[str, typer.Option(help="Where requests may come from.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="The first of five; else 8080 and on.")] = None,
    used: Annotated[
        Path | None, typer.Option(help="Where to say which archives are in use: CACHE/used.")
    ] = None,
    run_folder: Annotated[Path, typer.Option(help="Temporary files.")] = Path("/run/torchserve"),
) -> None:
    """Starts TorchServe, registers the models and stays until TorchServe ends or SIGTERM comes."""
    wanted = read_models(models)
    server = Foreground(run_folder, cache, listen, port)
    signal.signal(signal.SIGTERM, server.end)
    signal.signal(signal.SIGINT, server.end)
    archives = [model.archive(name) for name, model in wanted.items()]
    with nullcontext() if used is None else Marks(used, archives):
        server.start()
        try:
            server.register(wanted)
            code = server.wait()
        finally:
            server.end()
            server.wait(_END_S)
    if code != 0 and not server.ending:
        raise Trouble(f"TorchServe ended with {code}.")


class Foreground:
    """A TorchServe whose logs are this process' output.

    Args:
        cache: the model store.
        listen: the address of the inference API; management is always on loopback.
        port: the first of its five ports; None takes the profile's.
    """

    def __init__(self, folder: Path, cache: Path, listen: str, port: int | None = None) -> None:
        self._folder = folder.resolve()
        self._cache = cache.resolve()
        settings = complete(read_settings(_PROFILE), port=port, folder=ROOT)
        settings["inference_address"] = settings["inference_address"].replace("127.0.0.1", listen)
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.ending = False

    def start(self) -> None:
        """Starts it and returns when its APIs answer."""
        temporary = self._folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        config = self._folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._settings.items()))
        python = bare_interpreter(self._folder / "python")
        command: list[str | Path] = [python, "-m", "ts.model_server", "--start", "--foreground"]
        command += ["--ncs", "--ts-config", config, "--model-store", self._cache]
        command += ["--log-config", _PROFILE.parent / "log4j2.xml"]
        # A group of its own: TorchServe's launcher passes no signal on to the server.
        self._process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=server_environment(temporary, self._folder / "logs"),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_up()

    def register(self, models: dict[str, Model]) -> None:
        """Registers each model as often as it asks; returns when all workers are READY.

        The first registration measures t(b), which the others then read.
        """
        for name, model in models.items():
            archive = model.archive(name)
            if not (self._cache / archive).exists():
                raise Trouble(f"{name}: {self._cache} holds no {archive}.")
            first, *others = model.registered(name)
            self._register(archive, first)
            with ThreadPoolExecutor(max(1, len(others))) as threads:
                list(threads.map(lambda one, archive=archive: self._register(archive, one), others))

    def wait(self, within_s: float | None = None) -> int:
        """TorchServe's exit code; it is killed if it has not ended `within_s` seconds."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            return self._process.wait()

    def end(self, number: int | None = None, _: FrameType | None = None) -> None:
        """Asks TorchServe and its workers to end."""
        self.ending = self.ending or number is not None
        self._signal(signal.SIGTERM)

    def _register(self, archive: str, name: str) -> None:
        management = self._management()
        if self.ending:
            return
        began = time.monotonic()
        management.register(archive, name)
        management.wait_ready(name)
        print(f"{name} is READY after {time.monotonic() - began:.1f} s", flush=True)

    def _management(self) -> Management:
        management = client_url(self._settings["management_address"])
        return Management(management, client_url(self._settings["inference_address"]))

    def _wait_until_up(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise Trouble("TorchServe did not start; its own words are above.")
            try:
                self._management().models()
            except requests.ConnectionError:
                time.sleep(_LOOK_S)
            else:
                return
        raise Trouble(f"TorchServe does not answer after {_START_S:.0f} s.")

    def _signal(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    run(app)
