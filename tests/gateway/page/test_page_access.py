"""The page for everybody: keyboard, screen reader, contrast, narrow screens."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from page_rig import card, contrast, draw, parse_colour


def test_a_picture_is_shown_large_and_escape_closes_it(open_page, artist):
    page = open_page()
    draw(page)
    page.get_by_role("button", name="Show larger: red heart").click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("img", name="red heart")).to_be_visible()
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.get_by_role("button", name="Show larger: red heart")).to_be_focused()


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
