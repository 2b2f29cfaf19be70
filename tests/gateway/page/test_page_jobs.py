"""Jobs on the page, from a prompt to a picture, a failure, a cancellation."""

from __future__ import annotations

import re

import httpx2
from PIL import Image
from playwright.sync_api import expect

from api_rig import make_gateway, scripted_model, serving
from page_rig import Artist, card, draw


def test_from_a_prompt_to_a_picture_with_progress_and_previews(open_page, artist, server):
    page = open_page()
    artist.until = 4
    draw(page)
    shown = card(page)
    expect(shown.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(shown.get_by_role("img", name=re.compile("Preview after step"))).to_be_visible()
    artist.until = None
    picture = shown.get_by_role("img", name="red heart")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    (job,) = artist.asked
    seed = job.fields["seed"]
    expect(shown.locator(".state")).to_contain_text(f"seed {seed}")
    assert job.fields["preview_every"] == 2
    assert page.title() == "Pictures"


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


def test_a_picture_is_downloaded_under_a_name_that_tells_what_it_is(open_page, artist):
    page = open_page()
    draw(page, "Red heart, no. 2!")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: Red heart").click()
    seed = artist.asked[0].fields["seed"]
    assert download.value.suggested_filename == f"red-heart-no-2-{seed}.png"
    with Image.open(download.value.path()) as picture:
        assert picture.size == (64, 64)


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


def test_a_gateway_that_is_gone_and_comes_back(open_page, artist, server):
    page = open_page(expecting="ERR_")
    page.context.set_offline(True)
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer.")
    page.context.set_offline(False)
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    assert len(artist.asked) == 1


def test_pictures_that_are_gone_are_told_so(open_page, artist, server):
    page = open_page(expecting="404")
    draw(page)
    expect(card(page).get_by_role("img", name="red heart")).to_be_visible()
    job = server.run(server.gateway.store.get(artist.asked[0].id))
    server.run(server.gateway.results.delete([job.result.pictures[0].key]))
    page.context.new_cdp_session(page).send("Network.clearBrowserCache")
    page.reload()
    expect(card(page)).to_contain_text("This picture is not there any more.")


def test_jobs_are_asked_for_where_no_more_may_be_watched(browser, tmp_path):
    with serving(make_gateway(tmp_path, scripted_model(), max_watchers=1)) as server:
        artist = Artist(server)
        artist.takes.clear()
        page = browser.new_page()
        page.goto(server.url)
        for number in range(3):
            draw(page, f"picture {number}")
            expect(card(page, f"picture {number}")).to_be_visible()
        artist.takes.set()
        for number in range(3):
            name = f"picture {number}"
            expect(card(page, name).get_by_role("img", name=name)).to_be_visible(timeout=10_000)
        page.context.close()
        artist.stop()
