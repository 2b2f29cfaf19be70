"""make up and make down, through the script behind them: a real TorchServe with the demonstration
model, a real gateway, a real browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
import requests

from gateway_stack import Stack, ended, submit
from served import PNG
from serving.fleet import Fleet
from serving.ports import is_taken
from serving.server import Server

pytestmark = pytest.mark.system

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("up"))
    started = made.up()
    assert started.returncode == 0, started.stdout + started.stderr
    made.said = started.stdout  # type: ignore[attr-defined]
    yield made
    made.down()


def test_what_it_prints_works(stack):
    said = stack.said
    assert f"The page:  {stack.url}/" in said
    (curl,) = [line for line in said.splitlines() if line.startswith("curl")]
    answer = subprocess.run(curl, shell=True, capture_output=True, text=True, check=True)
    assert '"status":"completed"' in answer.stdout
    (link,) = re.findall(r'"image_url":"([^"]+)"', answer.stdout)
    assert requests.get(link, timeout=10).content.startswith(PNG)
    page = requests.get(f"{stack.url}/", timeout=10)
    assert "<title>Pictures</title>" in page.text
    metrics = requests.get(f"{stack.url}/metrics", timeout=10).text
    assert 'diffusion_requests_total{model="emoji",status="completed"}' in metrics


def test_up_again_changes_nothing(stack):
    before = stack.gateway_process
    again = stack.up()
    assert again.returncode == 0, again.stderr
    assert f"The page:  {stack.url}/" in again.stdout
    assert stack.gateway_process == before


def test_a_job_goes_on_after_the_gateway_was_killed(stack):
    first = submit(stack, num_inference_steps=90, seed=5)["job_id"]
    waiting = [submit(stack, num_inference_steps=3, seed=seed)["job_id"] for seed in range(6)]
    time.sleep(0.5)
    os.kill(stack.gateway_process, signal.SIGKILL)
    assert stack.up().returncode == 0
    jobs = [ended(stack, job_id) for job_id in (first, *waiting)]
    assert [job["status"] for job in jobs] == ["completed"] * 7
    assert [job["seed"] for job in jobs] == [5, *range(6)]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_the_page_draws_with_the_real_model(stack):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page()
        page.goto(stack.url)
        page.get_by_label("Prompt", exact=True).fill("strawberry")
        page.get_by_label("Steps", exact=True).fill("40")
        page.get_by_role("button", name="Draw", exact=True).click()
        card = page.get_by_role("article", name="strawberry")
        expect(card.get_by_role("img", name="Preview after step")).to_be_visible(timeout=60_000)
        picture = card.get_by_role("img", name="strawberry")
        expect(picture).to_be_visible(timeout=60_000)
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        browser.close()


def test_a_taken_port_is_one_sentence(tmp_path):
    stack = Stack(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.gateway_port))
        taken.listen()
        refused = stack.up()
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Port {stack.gateway_port} is taken by ")
    assert "GATEWAY_PORT=" in refused.stderr
    assert refused.stderr.strip().count("\n") == 0
    assert not is_taken(stack.port)


def test_a_wrong_setting_is_one_sentence(tmp_path):
    refused = Stack(tmp_path).up("--redis-url", "mysql://nowhere")
    assert refused.returncode == 1
    assert refused.stderr.startswith("store_url: must be sqlite:PATH")
    assert refused.stderr.strip().count("\n") == 0


def test_a_model_that_is_nowhere_is_one_sentence(tmp_path):
    stack = Stack(tmp_path)
    refused = stack.up("--name", "mien")
    assert refused.returncode == 1
    told = "model_store holds no archive of mien, and there is no pipeline models/mien"
    assert refused.stderr.startswith(told)
    assert "make archive MODEL=<folder> NAME=mien MODE=continuous" in refused.stderr
    assert not is_taken(stack.port)


@pytest.mark.full
def test_up_brings_back_what_died(stack):
    fleet = Fleet(Server(stack.run_folder))
    fleet.scale("emoji", 2)
    before = fleet.management.version("emoji").archive
    gateway = stack.gateway_process
    psutil.Process(Server(stack.run_folder).require().pid).kill()
    waiting = submit(stack, num_inference_steps=3, seed=1)["job_id"]
    # As it is typed at night: without a port, without a name.
    again = stack.bare_up()
    assert again.returncode == 0, again.stderr
    assert "TorchServe had died; it serves again: emoji, emoji-2" in again.stdout
    assert stack.gateway_process == gateway
    management = Server(stack.run_folder).management()
    assert [management.version(name).archive for name in ("emoji", "emoji-2")] == [before] * 2
    assert management.inference.endswith(f":{stack.port}")
    assert ended(stack, waiting)["status"] == "completed"
    os.kill(gateway, signal.SIGKILL)
    assert stack.bare_up().returncode == 0
    assert ended(stack, submit(stack, seed=2)["job_id"])["status"] == "completed"
    assert management.describe("emoji")["checkpoints"]
    Fleet(Server(stack.run_folder)).scale("emoji", 1)


def test_down_ends_both(stack):
    process = stack.gateway_process
    done = stack.down()
    assert done.stdout.splitlines()[-2:] == ["The gateway has ended.", "TorchServe has stopped."]
    assert not is_taken(stack.gateway_port)
    assert not is_taken(stack.port)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    again = stack.down()
    assert again.returncode == 0
    assert "The gateway was not running." in again.stdout
    # The other tests of the module come in any order.
    assert stack.up().returncode == 0
