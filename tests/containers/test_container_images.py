"""What the images run, run: on the files that a Dockerfile copies, in the environment it sets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from containers.requirements import EXTRAS, OF_GATEWAY, name_of
from containers.requirements import requirements as lines_of
from image_rig import FOLDER, Image, command_of, instructions
from served import PNG, ROOT, build
from serving.ports import free_base
from tiny import save_tiny_stable_diffusion

DOCKERFILES = sorted(FOLDER.glob("*.Dockerfile"))
PROBE = "/app/scripts/containers/probe.py"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles_are_as_they_should_be(dockerfile: Path) -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", dockerfile], capture_output=True, text=True
    )
    assert (linted.stdout, linted.returncode) == ("", 0)
    *_, user = (rest for word, rest in instructions(dockerfile) if word == "USER")
    assert user == "10001:10001"
    copied = " ".join(rest for word, rest in instructions(dockerfile) if word == "COPY")
    assert not re.search(r"models/|model_store|safetensors|\.mar\b", copied)
    # What is not sent cannot be copied.
    sent = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for word, rest in instructions(dockerfile):
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert source.split("/")[0] in sent
                assert (ROOT / source).exists()


def test_the_gateway_has_no_torch_and_every_package_that_is_named_is_there() -> None:
    pinned = {
        name_of(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line
    }
    assert set(OF_GATEWAY) <= pinned
    names = {image: {name_of(line) for line in lines_of(image)} for image in EXTRAS}
    assert not names["gateway"] & {"torch", "diffusers", "transformers", "torchserve"}
    assert {"fastapi", "obstore", "redis"} <= names["gateway"]
    assert {"torch", "torchserve", "diffusers"} <= names["worker-cpu"] <= names["worker-cuda"]


def test_the_gateways_image_has_all_that_the_gateway_needs(tmp_path: Path) -> None:
    image = Image("gateway", tmp_path)
    before = image.files()
    told = image.run([*image.entrypoint, "--help"])
    assert told.returncode == 0, told.stdout
    assert "drain" in told.stdout
    # Of what the image holds: nothing of the repository is within reach.
    places = "import diffusion_core, diffusion_costs, diffusion_gateway, containers.fetch as f; "
    places += "print(diffusion_core.__file__, diffusion_costs.__file__, f.__file__)"
    found = image.run(["python", "-c", places]).stdout
    assert [place.startswith(str(image.root)) for place in found.split()] == [True] * 3, found
    assert (image.root / command_of("gateway")[2].lstrip("/")).exists()
    assert image.files() == before


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_model_is_fetched_and_served_and_everything_ends(tmp_path: Path) -> None:
    store = tmp_path / "bucket"
    store.mkdir()
    pipeline = save_tiny_stable_diffusion(tmp_path / "pipeline")
    build(store, pipeline, "tiny", "no-archive", continuousBatching=True)
    digest = hashlib.sha256((store / "tiny" / "archive.json").read_bytes()).hexdigest()
    models, cache = tmp_path / "models.json", tmp_path / "cache"
    wanted = {"source": f"file://{store}/tiny", "sha256": digest, "registrations": 2}
    models.write_text(json.dumps({"tiny": wanted}))
    ports = free_base()
    management = ["--management", f"http://127.0.0.1:{ports + 1}"]

    gateway, worker = Image("gateway", tmp_path), Image("worker", tmp_path)
    before = worker.files()
    fetch = ["python", "-m", "containers.fetch", "--models", str(models), "--cache", str(cache)]
    fetched = gateway.run(fetch)
    assert fetched.returncode == 0, fetched.stdout

    # The image's own command, with its places on this machine.
    places = {"/etc/diffusion/models.json": str(models)}
    command = [*worker.entrypoint]
    command += [
        places.get(word, word.replace("/models", str(cache))) for word in command_of("worker")
    ]
    command += ["--port", str(ports), "--run-folder", str(tmp_path / "run")]
    log = tmp_path / "serve.log"
    with log.open("w") as output:
        serving = worker.start(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        asked = worker.run(["python", PROBE, *management, "ready", str(models)])
        assert (asked.returncode, "tiny:" in asked.stdout) == (1, True)
        end = time.monotonic() + 240
        while worker.run(["python", PROBE, *management, "started", str(models)]).returncode:
            assert serving.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        inference = f"http://127.0.0.1:{ports}"
        for question in (["alive"], ["ready", str(models)]):
            probe = ["python", PROBE, "--inference", inference, *management, *question]
            assert worker.run(probe).returncode == 0
        drawn = requests.post(
            f"{inference}/predictions/tiny-2",
            json={"prompt": "a secret prompt", "num_inference_steps": 2},
            headers={"Accept": "image/png"},
            timeout=60,
        )
        assert drawn.content.startswith(PNG)
        metrics = requests.get(f"http://127.0.0.1:{ports + 2}/metrics", timeout=10).text
        assert "diffusion_worker_starts_total" in metrics
        assert [one.name for one in (cache / "used").iterdir()] == [f"tiny-{digest[:12]}"]
    finally:
        serving.send_signal(signal.SIGTERM)
        code = serving.wait(60)
    assert code == 0, log.read_text()
    said = log.read_text()
    assert "tiny-2 is READY" in said
    assert "secret" not in said
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{inference}/ping", timeout=5)
    # A root that is read-only would have done.
    assert worker.files() == before


@pytest.mark.full
@pytest.mark.timeout(900)
def test_what_the_gateways_image_installs_is_enough(tmp_path: Path) -> None:
    """In a new environment, with nothing from this one."""
    venv = tmp_path / "venv"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        ["config/containers/install.sh", "gateway", "libraries"],
        cwd=ROOT,
        env={**kept, "VENV": str(venv), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    image = Image("gateway", tmp_path)
    image.python = venv / "bin" / "python"
    # The gateway as it is served, with what it imports only when it is asked for.
    every = (
        "import pkgutil, importlib, diffusion_gateway as g, diffusion_core as c, containers.fetch\n"
        "for room in (g, c):\n"
        "    for one in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        if not one.name.endswith('__main__'):\n"
        "            importlib.import_module(one.name)\n"
        "import sys; print('torch' in sys.modules)"
    )
    imported = image.run(["python", "-c", every])
    assert imported.stdout.splitlines()[-1] == "False", imported.stdout
    assert image.run([*image.entrypoint, "--help"]).returncode == 0
