"""Prices, budgets and accounts for tests of what jobs cost."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from diffusion_gateway.costs.accounts import Accounts
from diffusion_gateway.settings import EndpointSettings, GatewaySettings
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.stores.usage import Usage
from diffusion_gateway.upstream.endpoints import Endpoint, Registration
from diffusion_gateway.upstream.model_server import Registered

HOUR = 3.6
"""What the machine costs by the hour: a thousandth of a dollar for each second."""

ENDPOINT = {"inference": "http://one", "management": "http://one"}
NOON = datetime.fromisoformat("2026-11-22T12:00:00+00:00").timestamp()


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def endpoint(workers: int = 1, **settings: Any) -> Endpoint:
    made = Endpoint.of(EndpointSettings.model_validate({**ENDPOINT, **settings}))
    made.alive = True
    known = Registered("emoji", "1.0", "a.mar", 2, True, workers, workers, frozenset())
    made.registrations["emoji"] = Registration(made, known)
    return made


def told(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"diffusion_gateway_{name}", labels)


def price_table(folder: Path, **changes: Any) -> Path:
    """A table in which `gpu` costs a thousandth a second from 2026 on, and spot a fourth of it."""
    table = {
        "as_of": "2026-11-22",
        "good_for_days": 3650,
        "currency": "USD",
        "source": "of this test",
        "exchange": {"EUR": [{"from": "2026-01-01", "rate": 2}]},
        "machines": {
            "gpu": {
                "source": "of this test",
                "prices": [
                    {"from": "2026-01-01", "on_demand": HOUR, "spot": HOUR / 4, "reserved": 1.8}
                ],
            }
        },
        **changes,
    }
    path = folder / "prices.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


def budget_file(folder: Path, **budgets: dict[str, Any]) -> Path:
    path = folder / "budgets.yaml"
    path.write_text(yaml.safe_dump({"budgets": budgets}))
    return path


def priced(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a gateway whose machines have prices."""
    return {"machine": "gpu", "prices_file": price_table(folder), **changes}


def accounts(
    folder: Path, store: JobStore, clock: Any, registry: CollectorRegistry, **changes: Any
) -> Accounts:
    settings = GatewaySettings.model_validate(priced(folder, **changes))
    return Accounts(settings, store, registry, clock)


async def charged(store: JobStore) -> dict[tuple[str, str], Usage]:
    """All usage of a model, by tenant and bucket; each pair is there once."""
    found = [one for one in await store.usage(0, 1 << 40) if one.bucket != "held"]
    rows = {(one.tenant, one.bucket): one for one in found}
    assert len(rows) == len(found)
    return rows
