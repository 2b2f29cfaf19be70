"""The page in a real Chromium, in front of a real gateway; pictures are made up (`page_rig`)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from api_rig import Server, make_gateway, scripted_model, serving
from diffusion_gateway.tenants import TenantSettings
from page_rig import Artist, contrast, listen, parse_colour

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="needs a Chromium at /usr/bin/chromium"
)

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
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


def draw(page: Page, prompt: str = "red heart") -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()


def card(page: Page, prompt: str = "red heart") -> Any:
    return page.get_by_role("article", name=prompt).first


def test_from_a_prompt_to_a_picture_with_progress_and_previews(open_page, artist, server):
    page = open_page()
    artist.go_on.clear()
    draw(page)
    shown = card(page)
    expect(shown.get_by_role("progressbar", name="Progress")).to_be_visible()
    artist.go_on.set()
    expect(shown.get_by_role("img", name=re.compile("Preview after step"))).to_be_visible()
    picture = shown.get_by_role("img", name="red heart")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    (job,) = artist.asked
    seed = job.fields["seed"]
    expect(shown.locator(".state")).to_contain_text(f"seed {seed}")
    assert job.fields["preview_every"] == 2
    assert page.title() == "Pictures"


def test_several_pictures_each_with_its_seed(open_page, artist):
    page = open_page()
    page.get_by_role("group", name="Pictures").get_by_label("3").check()
    page.get_by_label("Seed", exact=True).fill("9007199254740993")
    draw(page)
    shown = card(page)
    expect(shown.get_by_role("img")).to_have_count(3)
    # Above 2**53, where JavaScript's own numbers lose the last digit.
    assert [job.fields["seed"] for job in artist.asked] == [9007199254740993]
    for seed in ("9007199254740993", "9007199254740994", "9007199254740995"):
        expect(shown.get_by_text(f"Seed {seed}")).to_be_visible()


def test_a_waiting_job_tells_its_place_and_can_be_cancelled(open_page, artist):
    page = open_page()
    artist.takes.clear()
    draw(page, "first")
    expect(card(page, "first").locator(".state")).to_have_text("Next in line")
    draw(page, "second")
    expect(card(page, "second").locator(".state")).to_have_text("1 ahead in line")
    page.get_by_role("button", name="Cancel: second").click()
    expect(card(page, "second").locator(".state")).to_have_text("Cancelled")
    artist.takes.set()
    expect(card(page, "first").get_by_role("img", name="first")).to_be_visible()
    assert len(artist.asked) == 1


def test_a_running_job_can_be_cancelled(open_page, artist):
    page = open_page()
    artist.go_on.clear()
    draw(page)
    expect(card(page).get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Cancel: red heart").click()
    expect(card(page).locator(".state")).to_have_text("Cancelled")
    # The pressed button is gone; whoever pressed it by keyboard is still at the job.
    assert page.evaluate("document.activeElement.textContent") == "red heart"
    artist.go_on.set()
    page.wait_for_timeout(200)
    assert artist.lost == [artist.asked[0].id]


def test_a_failed_job_says_why_and_can_be_tried_again(open_page, artist):
    page = open_page()
    draw(page, "this fails")
    expect(card(page, "this fails").locator(".state")).to_have_text(
        "It could not be drawn: the picture has values that are not finite"
    )
    page.get_by_label("Prompt", exact=True).fill("something else")
    page.get_by_role("button", name="Try again: this fails").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("this fails")


def test_a_wrong_field_is_marked_and_says_what_it_takes(open_page, artist):
    page = open_page(expecting="422")
    width = page.get_by_label("Width")
    width.fill("100")
    draw(page)
    expect(width).to_have_attribute("aria-invalid", "true")
    expect(width).to_be_focused()
    expect(width).to_have_accessible_description("Must be a multiple of 8.")
    expect(page.get_by_role("article")).to_have_count(0)
    width.fill("96")
    expect(width).not_to_have_attribute("aria-invalid", "true")
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()


def test_a_wrong_field_that_is_folded_away_is_shown(open_page, artist):
    page = open_page(expecting="422")
    page.get_by_text("More settings").click()
    page.get_by_label("CLIP layers to skip").fill("9")
    page.get_by_text("More settings").click()
    draw(page)
    skip = page.get_by_label("CLIP layers to skip")
    expect(skip).to_be_visible()
    expect(skip).to_be_focused()


def test_an_empty_prompt_is_not_sent(open_page, artist):
    page = open_page()
    page.get_by_role("button", name="Draw", exact=True).click()
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_accessible_description("Say what the picture should show.")
    expect(prompt).to_be_focused()


def test_a_full_queue_is_told_in_words(browser, tmp_path):
    made = make_gateway(tmp_path, scripted_model(), max_waiting=1)
    with serving(made) as server:
        page = browser.new_page()
        page.goto(server.url)
        draw(page, "first")
        expect(card(page, "first")).to_be_visible()
        draw(page, "second")
        expect(page.get_by_role("alert")).to_contain_text("The queue is full. Try again in about")
        page.context.close()


def test_again_with_this_seed_and_as_a_variation(open_page, artist):
    page = open_page()
    page.get_by_label("Steps", exact=True).fill("4")
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    seed = str(artist.asked[0].fields["seed"])
    page.get_by_label("Prompt", exact=True).fill("other")
    page.get_by_label("Steps", exact=True).fill("9")
    page.get_by_role("button", name=f"Again with this seed, {seed}").click()
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_have_value("red heart")
    expect(page.get_by_label("Seed", exact=True)).to_have_value(seed)
    expect(page.get_by_label("Steps", exact=True)).to_have_value("4")

    page.get_by_role("button", name="Use as variation: red heart").click()
    expect(page.get_by_role("img", name="The picture you start from")).to_be_visible()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("")
    page.get_by_label("Strength", exact=True).fill("0.5")
    draw(page, "red heart again")
    expect(card(page, "red heart again").get_by_role("img", name="red heart again")).to_be_visible()
    job = artist.asked[1]
    assert (job.task, job.fields["strength"], job.steps) == ("image-to-image", 0.5, 2)


def test_a_picture_of_ones_own_sets_the_size(open_page, artist, tmp_path):
    page = open_page()
    Image.new("RGB", (500, 250), "teal").save(tmp_path / "own.png")
    page.get_by_text("Start from a picture", exact=True).first.click()
    page.locator("#field-image").set_input_files(tmp_path / "own.png")
    expect(page.get_by_label("Width")).to_have_value("256")
    expect(page.get_by_label("Height")).to_have_value("128")
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#field-image")).to_be_visible()


def test_a_picture_is_downloaded_under_a_name_that_tells_what_it_is(open_page, artist):
    page = open_page()
    draw(page, "Red heart, no. 2!")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: Red heart").click()
    seed = artist.asked[0].fields["seed"]
    assert download.value.suggested_filename == f"red-heart-no-2-{seed}.png"
    with Image.open(download.value.path()) as picture:
        assert picture.size == (64, 64)


def test_a_picture_is_shown_large_and_escape_closes_it(open_page, artist):
    page = open_page()
    draw(page)
    page.get_by_role("button", name="Show larger: red heart").click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("img", name="red heart")).to_be_visible()
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.get_by_role("button", name="Show larger: red heart")).to_be_focused()


def test_deleting_asks_once_more_and_forgets_everything(open_page, artist, server):
    page = open_page()
    draw(page)
    page.get_by_role("button", name="Delete: red heart").click()
    page.get_by_role("button", name="Really delete?").click()
    expect(page.get_by_role("article")).to_have_count(0)
    expect(page.get_by_text("What you ask for appears here.")).to_be_visible()
    answer = httpx2.get(f"{server.url}/jobs/{artist.asked[0].id}", trust_env=False)
    assert answer.status_code == 404


def test_a_reload_keeps_running_and_finished_jobs(open_page, artist):
    page = open_page()
    draw(page, "finished")
    expect(card(page, "finished").get_by_role("img", name="finished")).to_be_visible()
    artist.go_on.clear()
    draw(page, "running")
    expect(card(page, "running").get_by_role("progressbar")).to_be_visible()
    page.reload()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("article").first).to_contain_text("running")
    artist.go_on.set()
    expect(card(page, "running").get_by_role("img", name="running")).to_be_visible()
    expect(card(page, "finished").get_by_role("img", name="finished")).to_be_visible()


def test_more_jobs_than_a_browser_opens_connections(open_page, artist):
    page = open_page()
    artist.takes.clear()
    for number in range(8):
        draw(page, f"picture {number}")
        expect(card(page, f"picture {number}")).to_be_visible()
    artist.takes.set()
    for number in range(8):
        expect(
            card(page, f"picture {number}").get_by_role("img", name=f"picture {number}")
        ).to_be_visible()


def test_everything_by_keyboard(open_page, artist):
    page = open_page()
    artist.go_on.clear()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("red heart")
    page.keyboard.press("Control+Enter")
    expect(card(page).get_by_role("progressbar")).to_be_visible()
    reached = []
    page.get_by_label("Prompt", exact=True).focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at);
            return [at.id || at.name || at.ariaLabel || at.textContent,
                    at.matches('.choices input') || parseFloat(style.outlineWidth) >= 2] }"""
        )
        reached.append(focused[0])
        assert focused[1], f"{focused[0]} does not show its focus"
        if focused[0] == "Cancel: red heart":
            break
    assert reached[-1] == "Cancel: red heart"
    for control in ("num_images", "field-width", "field-height", "field-seed", "draw"):
        assert control in reached
    page.keyboard.press("Enter")
    expect(card(page).locator(".state")).to_have_text("Cancelled")
    artist.go_on.set()


def test_screen_readers_hear_what_happens(open_page, artist):
    page = open_page()
    heard = page.evaluate_handle(
        """() => { const heard = []; new MutationObserver(() => heard.push(
        document.getElementById('announcer').textContent)).observe(
        document.getElementById('announcer'), {childList: true}); return heard }"""
    )
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    said = [text for text in heard.json_value() if text]
    assert said[0].startswith("Accepted.")
    assert said[-1] == "red heart: Done: one picture"
    # Every step would be chatter.
    assert len(said) <= 4
    announcer = page.locator("#announcer")
    expect(announcer).to_have_attribute("aria-live", "polite")


CONTROLS = """() => [...document.querySelectorAll('input, select, textarea, button, a, progress')]
  .filter(one => one.checkVisibility())
  .map(one =>
    [one.tagName, one.id, one.labels?.length || 0, one.ariaLabel, one.textContent.trim()])"""


def test_every_control_has_a_name_and_every_picture_a_text(open_page, artist):
    page = open_page()
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    for fold in page.locator("details").all():
        fold.evaluate("fold => fold.open = true")
    controls = page.evaluate(CONTROLS)
    assert len(controls) > 20
    nameless = [
        one for one in controls if not (one[2] or one[3] or (one[0] in ("BUTTON", "A") and one[4]))
    ]
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
    headings = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => one.tagName)")
    assert headings == ["H1", "H2", "H2", "H3"]
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("main").count() == 1
    doubled = page.evaluate(
        "() => { const ids = [...document.querySelectorAll('[id]')].map(one => one.id);"
        " return ids.filter((id, at) => ids.indexOf(id) !== at) }"
    )
    assert doubled == []


COLOURS = """() => [...document.querySelectorAll('body *')].filter(one =>
    one.checkVisibility({visibilityProperty: true}) && !one.matches('.unseen, .skip, option')
    && [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
  .map(one => { let ground = one; const clear = 'rgba(0, 0, 0, 0)';
    while (ground.parentElement && getComputedStyle(ground).backgroundColor === clear)
      ground = ground.parentElement;
    return [one.textContent.trim().slice(0, 30), getComputedStyle(one).color,
            getComputedStyle(ground).backgroundColor] })"""

EDGES = """() => [...document.querySelectorAll('input, select, textarea')].filter(one =>
    one.checkVisibility()
    && !one.matches('[type=range], [type=radio], [type=checkbox], [type=file]'))
  .map(one => [one, getComputedStyle(one)])
  .map(([one, style]) => [one.id, style.borderTopColor, style.backgroundColor])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_enough_in_both_schemes(scheme, open_page, artist):
    page = open_page(expecting="422", color_scheme=scheme)
    draw(page, "this fails")
    expect(card(page, "this fails").locator(".state")).to_contain_text("could not be drawn")
    artist.takes.clear()
    draw(page, "waiting")
    page.get_by_label("Width").fill("100")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_label("Width")).to_have_attribute("aria-invalid", "true")
    page.mouse.move(0, 0)
    texts = page.evaluate(COLOURS)
    assert len(texts) > 15
    for text, ink, ground in texts:
        ratio = contrast(parse_colour(ink), parse_colour(ground))
        assert ratio >= 4.5, f"{text!r}: {ink} on {ground} is {ratio:.2f}"
    for name, edge, ground in page.evaluate(EDGES):
        ratio = contrast(parse_colour(edge), parse_colour(ground))
        assert ratio >= 3, f"{name}: {edge} on {ground} is {ratio:.2f}"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(parse_colour(ground)) < 300) == (scheme == "dark")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_sticks_out_at_any_width(width, open_page, artist):
    page = open_page(viewport={"width": width, "height": 740})
    page.get_by_role("group", name="Pictures").get_by_label("4").check()
    draw(page, "a" * 200 + " very long prompt " * 5)
    expect(page.get_by_role("article").get_by_role("img")).to_have_count(4)
    for fold in page.locator("details").all():
        fold.evaluate("fold => fold.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.locator("button:visible, a.button:visible, select:visible").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 24).map(one => one.id)"
    )
    assert small == []


def test_with_reduced_motion_nothing_moves(open_page, artist):
    page = open_page(reduced_motion="reduce")
    artist.takes.clear()
    draw(page)
    blank = card(page).locator("canvas")
    assert blank.evaluate("one => getComputedStyle(one).animationName") == "none"


def test_a_key_is_asked_for_and_stays_in_the_tab(browser, tmp_path):
    with serving(make_gateway(tmp_path, scripted_model(), auth="on")) as server:
        artist = Artist(server)
        _, key = server.run(server.gateway.tenants.create("someone", TenantSettings()))
        context = browser.new_context()
        page = context.new_page()
        said = listen(page)
        page.goto(server.url)
        entry = page.get_by_label("API key", exact=True)
        expect(entry).to_be_focused()
        entry.fill("td_wrong")
        page.keyboard.press("Enter")
        expect(entry).to_have_accessible_description(re.compile("does not know this key"))
        entry.fill(key)
        page.keyboard.press("Enter")
        draw(page)
        expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
        picture = card(page).get_by_role("img", name="red heart")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
        page.get_by_role("button", name="Use as variation").click()
        expect(page.get_by_role("img", name="The picture you start from")).to_be_visible()
        kept = page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href]")
        assert not any(key in place for place in kept)
        assert key in page.evaluate("JSON.stringify(sessionStorage)")
        page.get_by_role("button", name="API key").click()
        assert key not in page.evaluate("JSON.stringify(sessionStorage)")
        assert [text for text in said if "401" not in text] == []
        context.close()
        artist.stop()


def test_a_gateway_that_is_gone_and_comes_back(open_page, artist, server):
    page = open_page(expecting="ERR_")
    page.context.set_offline(True)
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer.")
    page.context.set_offline(False)
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    assert len(artist.asked) == 1


def test_the_policy_is_strict_and_files_are_revalidated(server):
    with httpx2.Client(base_url=server.url, trust_env=False) as client:
        page = client.get("/")
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        for part in ("form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        for name in re.findall(r'(?:href|src)="(page/[^"]+)"', page.text):
            found = client.get(f"/{name}")
            assert found.status_code == 200, name
            tag = {"If-None-Match": found.headers["etag"]}
            assert client.get(f"/{name}", headers=tag).status_code == 304
        for wrong in ("/page/index.html", "/page/nothing.js", "/page/..%2fpage.py"):
            assert client.get(wrong).status_code == 404, wrong
    assert not re.search(r"<style|style=|onclick=|<script(?![^>]*src=)|https?://", page.text)


def test_pictures_elsewhere_are_named_in_the_policy(tmp_path):
    made = make_gateway(
        tmp_path,
        scripted_model(),
        results_public_url="https://cdn.example.com/pictures",
        public_url="https://draw.example.com",
    )
    with serving(made) as server:
        headers = {"Host": "draw.example.com"}
        answer = httpx2.get(server.url, headers=headers, trust_env=False)
        policy = answer.headers["content-security-policy"]
        assert "data: blob: https://draw.example.com https://cdn.example.com;" in policy


def test_pictures_that_are_gone_are_told_so(open_page, artist, server):
    page = open_page(expecting="404")
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    job = server.run(server.gateway.store.get(artist.asked[0].id))
    server.run(server.gateway.results.delete([job.result.pictures[0].key]))
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    page.reload()
    expect(card(page)).to_contain_text("This picture is not there any more.")
