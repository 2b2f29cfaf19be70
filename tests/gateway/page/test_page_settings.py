"""The settings of a picture on the page, and what it says of wrong ones."""

from __future__ import annotations

from PIL import Image
from playwright.sync_api import expect

from page_rig import card, draw


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


def test_settings_are_the_models_own_with_the_apis_words(open_page, artist):
    page = open_page()
    page.get_by_text("More settings").click()
    labels = page.locator("#fields label:visible, #fields legend:visible").all_inner_texts()
    for label in ("Negative prompt", "Scheduler", "Priority", "CLIP layers to skip"):
        assert label in labels
    # The gateway's and the page's own business.
    for name in ("webhook", "deadline", "model", "cache", "stream", "preview_every", "mask_image"):
        assert page.locator(f"#field-{name}").count() == 0
    expect(page.get_by_label("Negative prompt")).to_have_accessible_description("What not to draw.")
    page.get_by_label("Negative prompt").fill("people")
    page.get_by_label("Scheduler").select_option("EulerDiscreteScheduler")
    page.get_by_label("Priority").select_option("high")
    page.get_by_label("Width").fill("32")
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    (job,) = artist.asked
    assert job.priority == "high"
    asked = {name: job.fields[name] for name in ("negative_prompt", "scheduler", "width", "height")}
    assert asked == {
        "negative_prompt": "people",
        "scheduler": "EulerDiscreteScheduler",
        "width": 32,
        "height": 64,
    }
