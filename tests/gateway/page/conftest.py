"""A real Chromium on the page of a real gateway."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from api_rig import Server, make_gateway, scripted_model, serving
from page_rig import Artist, listen

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

OpenPage = Callable[..., Page]


# Playwright's loop runs on this thread for as long as it is open, and no other may meanwhile: it
# ends with the module, before another module's tests want a loop of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs a Chromium at {CHROMIUM}")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(make_gateway(tmp_path, scripted_model())) as made:
        yield made


@pytest.fixture
def artist(server: Server) -> Iterator[Artist]:
    made = Artist(server)
    yield made
    made.stop()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[OpenPage]:
    """Opens the page; at the end nothing may have been complained of but what a test expects."""
    contexts, said = [], []

    def open_(expecting: str = "nothing", ready: bool = True, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        said.append((expecting, listen(page)))
        page.goto(server.url)
        if ready:
            expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
        return page

    yield open_
    for context in contexts:
        context.close()
    for expecting, complaints in said:
        assert [text for text in complaints if expecting not in text] == []
