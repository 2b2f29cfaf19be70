"""The tariff: quotes by machine, purchase, part and day, and tables that cannot give one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costs_rig import ENDPOINT, NOON, Clock, endpoint, price_table, priced
from diffusion_core.errors import ConfigError
from diffusion_gateway.costs.tariff import Quote, Tariff
from diffusion_gateway.settings import GatewaySettings


def test_a_device_second_costs_its_share_of_the_machine(tmp_path: Path) -> None:
    tariff = Tariff(GatewaySettings(**priced(tmp_path)), Clock())
    assert tariff.device(endpoint()).nanos(1) == 1_000_000
    assert tariff.device(endpoint(workers=4)).nanos(1) == 250_000
    assert tariff.device(endpoint(pool="spot")).nanos(1) == 250_000
    assert tariff.device(endpoint(purchase="reserved")).nanos(1) == 500_000
    assert tariff.device(endpoint(machine_share=0.125)).nanos(1) == 125_000


def test_a_price_that_changes_in_mid_month_holds_from_its_day(tmp_path: Path) -> None:
    machines = {
        "gpu": {
            "source": "-",
            "prices": [
                {"from": "2026-01-01", "on_demand": 3.6},
                {"from": "2026-11-23", "on_demand": 7.2},
            ],
        }
    }
    clock = Clock()
    settings = {"machine": "gpu", "prices_file": price_table(tmp_path, machines=machines)}
    tariff = Tariff(GatewaySettings.model_validate(settings), clock)
    assert tariff.device(endpoint()).nanos(2) == 2_000_000
    clock.now += 43_200
    assert tariff.device(endpoint()).nanos(2) == 4_000_000


def test_without_a_machine_time_is_counted_and_nothing_priced(tmp_path: Path) -> None:
    tariff = Tariff(GatewaySettings(prices_file=tmp_path / "none.yaml"), Clock())
    assert tariff.device(endpoint()) == Quote()
    assert tariff.currency == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"machine": "tpu"}, "tpu: is no machine"),
        ({"endpoints": [{**ENDPOINT, "machine": "tpu"}]}, "tpu"),
        ({"prices_file": Path("none.yaml")}, "none.yaml"),
    ],
)
def test_a_machine_without_a_price_keeps_the_gateway_from_starting(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match="prices_file") as refused:
        Tariff(GatewaySettings.model_validate({**priced(tmp_path), **settings}))
    assert said in str(refused.value)


def test_an_api_without_a_machine_knows_currency_and_rates(tmp_path: Path) -> None:
    table = price_table(tmp_path)
    tariff = Tariff(GatewaySettings(role="api", endpoints=(), prices_file=table), Clock())
    assert tariff.currency == "USD"
    assert Tariff(GatewaySettings(role="api", endpoints=()), Clock()).prices is None


def test_an_old_table_is_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = price_table(tmp_path, good_for_days=30)
    Tariff(GatewaySettings(machine="gpu", prices_file=table), Clock(NOON + 31 * 86_400))
    assert "31 days old" in caplog.text


def test_a_later_line_that_lacks_a_purchase_keeps_the_gateway_from_starting(
    tmp_path: Path,
) -> None:
    lines = [
        {"from": "2026-01-01", "reserved": 1.0},
        {"from": "2026-06-01", "on_demand": 3.6, "spot": 0.9},
        {"from": "2027-01-01", "on_demand": 3.8},
    ]
    table = price_table(tmp_path, machines={"gpu": {"source": "-", "prices": lines}})

    def tariff(**settings: Any) -> Tariff:
        made = {"machine": "gpu", "prices_file": table, "endpoints": [{**ENDPOINT, **settings}]}
        return Tariff(GatewaySettings.model_validate(made), Clock())

    # What the line before this one lacks, nobody needs any more.
    assert tariff().prices is not None
    with pytest.raises(ConfigError) as refused:
        tariff(pool="spot")
    said = "machines.gpu: has no spot price on 2027-01-01"
    assert refused.value.message.startswith(f"prices_file: {table}: {said}")


def test_a_clock_that_is_set_to_before_the_table_costs_nothing_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    tariff = Tariff(GatewaySettings(**priced(tmp_path)), clock)
    clock.now = 0.0
    for _ in range(3):
        assert tariff.device(endpoint()) == Quote("gpu", "on_demand")
    assert caplog.text.count("no price is known for 1970-01-01") == 1
    clock.now = NOON
    assert tariff.device(endpoint()).nanos(1) == 1_000_000
