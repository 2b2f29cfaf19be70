"""What the page may load and keep: its policy, its files, an API key."""

from __future__ import annotations

import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx2
from playwright.sync_api import expect

from api_rig import make_gateway, scripted_model, serving
from diffusion_gateway.tenants import TenantSettings
from page_rig import Artist, card, draw, listen


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
        auth="off",
    )
    with serving(made) as server:
        headers = {"Host": "draw.example.com"}
        answer = httpx2.get(server.url, headers=headers, trust_env=False)
        policy = answer.headers["content-security-policy"]
        assert "data: blob: https://draw.example.com https://cdn.example.com;" in policy


def test_pictures_on_another_origin_are_shown_and_can_be_varied(browser, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    serve = partial(SimpleHTTPRequestHandler, directory=str(results))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever).start()
        base = f"http://127.0.0.1:{elsewhere.server_address[1]}"
        made = make_gateway(
            tmp_path,
            scripted_model(),
            results_url=f"file:{results}",
            results_public_url=base,
        )
        with serving(made) as server:
            artist = Artist(server)
            page = browser.new_page()
            said = listen(page)
            page.goto(server.url)
            draw(page)
            picture = card(page).get_by_role("img", name="red heart")
            expect(picture).to_have_attribute("src", re.compile(re.escape(base)))
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
            page.get_by_role("button", name="Use as variation").click()
            expect(page.get_by_role("img", name="The picture you start from")).to_be_visible()
            assert said == []
            page.context.close()
            artist.stop()
        elsewhere.shutdown()
