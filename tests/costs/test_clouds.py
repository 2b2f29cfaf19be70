"""Budgets in the clouds' words, checked by the clouds' own libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from azure.mgmt.consumption.models import Budget as AzureBudget
from google.cloud.billing.budgets_v1 import Budget as GoogleBudget
from moto import mock_aws

from diffusion_costs.budgets import Budgets
from diffusion_costs.clouds import Definitions, azure_template, definitions

SERVICE = {"service": "diffusion-inference"}
BOTH = {**SERVICE, "environment": "staging"}
MAIL = ["costs@example.com"]


def budgets(**named: dict[str, Any]) -> Budgets:
    return Budgets.model_validate(
        {"budgets": {name.replace("_", "-"): one for name, one in named.items()}}
    )


MIXED = budgets(
    all={"amount": "1250.50", "notify": MAIL},
    service={"amount": 100, "tags": SERVICE, "notify": MAIL},
    staging={"amount": 10, "tags": BOTH, "notify": MAIL, "thresholds": [80]},
    daily={"amount": 5, "period": "day", "tags": SERVICE, "notify": MAIL},
    weekly={"amount": 5, "period": "week", "notify": MAIL},
    silent={"amount": 5},
    tenant={"amount": 5, "tenant": "lab", "notify": MAIL},
)


def left(found: Definitions) -> set[str]:
    return {one.split(":")[0] for one in found.left_out}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("budgets", region_name="us-east-1")


def test_aws_takes_them(aws: Any) -> None:
    found = definitions(MIXED, "aws")
    for one in found.documents:
        # Its library checks every name and type; a copy, for the stand-in keeps what it is given.
        aws.create_budget(AccountId="123456789012", **json.loads(json.dumps(one)))
    made = aws.describe_budgets(AccountId="123456789012")["Budgets"]
    assert {one["BudgetName"]: one["TimeUnit"] for one in made} == {
        "all": "MONTHLY",
        "service": "MONTHLY",
        "staging": "MONTHLY",
        "daily": "DAILY",
    }
    assert {one["BudgetName"]: one["BudgetLimit"]["Amount"] for one in made}["all"] == "1250.50"
    assert left(found) == {"daily", "weekly", "silent", "tenant"}


def test_aws_asks_for_all_tags_and_warns_at_each_threshold() -> None:
    documents = {one["Budget"]["BudgetName"]: one for one in definitions(MIXED, "aws").documents}
    assert [
        one["Tags"]["Key"] for one in documents["staging"]["Budget"]["FilterExpression"]["And"]
    ] == [
        "service",
        "environment",
    ]
    warned = [
        (one["Notification"]["NotificationType"], one["Notification"]["Threshold"])
        for one in documents["all"]["NotificationsWithSubscribers"]
    ]
    assert warned == [(kind, at) for kind in ("ACTUAL", "FORECASTED") for at in (50, 75, 100)]


def test_azure_takes_them() -> None:
    found = definitions(MIXED, "azure")
    template = azure_template(found.documents)
    names = [one["name"] for one in template["resources"]]
    assert names == ["all", "all-2", "service", "service-2", "staging"]
    for one in template["resources"]:
        assert len(one["properties"]["notifications"]) <= 5
        budget = AzureBudget(json.loads(json.dumps({"properties": one["properties"]})))
        assert budget.properties.amount > 0
        assert budget.properties.time_grain == "Monthly"
        assert all(
            warned.contact_emails == MAIL for warned in budget.properties.notifications.values()
        )
    thresholds = [
        (warned["thresholdType"], warned["threshold"])
        for one in template["resources"][:2]
        for warned in one["properties"]["notifications"].values()
    ]
    assert thresholds == [(kind, at) for kind in ("Actual", "Forecasted") for at in (50, 75, 100)]
    assert left(found) == {"daily", "weekly", "silent", "tenant"}


def test_google_takes_them() -> None:
    found = definitions(MIXED, "google")
    parsed = [
        GoogleBudget.from_json(json.dumps(one), ignore_unknown_fields=False)
        for one in found.documents
    ]
    assert [one.display_name for one in parsed] == ["all", "service", "silent"]
    whole = parsed[0].amount.specified_amount
    assert (whole.units, whole.nanos, whole.currency_code) == (1250, 500_000_000, "USD")
    rules = [(one.spend_basis.name, one.threshold_percent) for one in parsed[0].threshold_rules]
    assert rules == [
        (basis, share)
        for basis in ("CURRENT_SPEND", "FORECASTED_SPEND")
        for share in (0.5, 0.75, 1.0)
    ]
    assert dict(parsed[1].budget_filter.labels)["service"][0] == "diffusion-inference"
    # One label is all that Google's budgets take.
    assert left(found) == {"staging", "daily", "weekly", "tenant"}


def test_the_budgets_that_ship(tmp_path: Path) -> None:
    shipped = Budgets.read(Path(__file__).parents[2] / "config" / "budgets.yaml")
    assert definitions(shipped, "google").documents
