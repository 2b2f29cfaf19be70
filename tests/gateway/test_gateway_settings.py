"""Settings: what is refused at the start, and by which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from api_rig import claim, finish, make_gateway
from diffusion_core.errors import ConfigError
from diffusion_gateway.settings import GatewaySettings, read_settings


def refused(**values: object) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        read_settings(None, values)
    return raised.value


@pytest.mark.parametrize("value", ["[1", "{", "a: b: c", "\x01"])
def test_a_variable_that_is_no_yaml_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GATEWAY_MAX_WAITING", value)
    error = refused()
    assert error.field == "max_waiting"
    assert "GATEWAY_MAX_WAITING" in error.message


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "*",
        "null",
        "http://[",
        "page.example",
        "https://",
        "https://page.example/path",
        "https://page.example?x",
        "https://me@page.example",
        "https://page.example:99999",
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    assert refused(allowed_origins=["https://page.example", origin]).field == "allowed_origins"


def test_origins_are_kept_as_browsers_send_them() -> None:
    settings = GatewaySettings(allowed_origins=("HTTPS://Page.example/", "http://[::1]:3000"))
    assert settings.allowed_origins == ("https://page.example", "http://[::1]:3000")


@pytest.mark.parametrize("setting", ["public_url", "results_public_url"])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "draw.example.com",
        "ftp://draw.example.com",
        "http://[",
        "https://",
        "https://a.example?x",
    ],
)
def test_links_cannot_begin_with_what_is_no_web_address(setting: str, url: str) -> None:
    assert refused(**{setting: url}).field == setting


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "draw.example.com"])
def test_whoever_listens_beyond_the_loopback_asks_for_keys(host: str) -> None:
    assert GatewaySettings(host=host).authenticates


@pytest.mark.parametrize(
    ("settings", "own", "linkless"),
    [
        ({}, "http://127.0.0.1:8000", False),
        ({"host": "::1"}, "http://[::1]:8000", False),
        ({"host": "0.0.0.0"}, "http://0.0.0.0:8000", True),
        ({"host": "::"}, "http://[::]:8000", True),
        ({"host": "::", "public_url": "https://a.example/b/"}, "https://a.example/b", False),
        ({"role": "worker"}, "http://127.0.0.1:8000", True),
        ({"role": "worker", "public_url": "https://a.example"}, "https://a.example", False),
    ],
)
def test_links_that_no_request_asks_for(
    settings: dict[str, object], own: str, linkless: bool
) -> None:
    chosen = GatewaySettings.model_validate(settings)
    assert (chosen.own_url, chosen.linkless) == (own, linkless)


async def test_a_webhooks_links_are_urls_on_ipv6_too(tmp_path: Path) -> None:
    async with make_gateway(tmp_path, host="::1") as gateway:
        await gateway.intake.accept({"prompt": "x"}, gateway.tenants.local)
        job = await claim(gateway)
        assert job is not None
        await finish(gateway, job)
        document = await gateway.document(await gateway.store.get(job.id))
    assert document["links"]["self"] == f"http://[::1]:8000/jobs/{job.id}"
    assert document["image_url"].startswith("http://[::1]:8000/")


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_a_gateway_that_knows_no_address_of_its_own_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, host: str, warned: bool
) -> None:
    async with make_gateway(tmp_path, host=host):
        assert any("public_url" in record.message for record in caplog.records) is warned
