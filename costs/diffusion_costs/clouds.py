"""The budgets of config/budgets.yaml in the words of the clouds' own budget services.

A cloud warns where this project cannot look: before the bill is exported, and of what runs outside
of it. What a cloud cannot say is left out, and told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from diffusion_costs.budgets import Budget, Budgets, TagKey
from diffusion_costs.tags import KEYS

Cloud = Literal["aws", "azure", "google"]
CLOUDS: tuple[Cloud, ...] = ("aws", "azure", "google")

# Azure takes five notifications for a budget, Google names of 60 characters.
_AZURE_NOTIFICATIONS = 5
_GOOGLE_NAME = 60

_AWS_UNITS = {"day": "DAILY", "month": "MONTHLY"}


@dataclass(frozen=True)
class Definitions:
    """What a cloud is to be told. left_out: what it cannot be told, and why."""

    documents: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...]


class _UnsayableError(Exception):
    """A cloud has no words for this."""


def definitions(budgets: Budgets, cloud: Cloud) -> Definitions:
    """Every budget by tags, as `cloud` takes it; tenants share machines, which no cloud tells
    apart, so theirs are left out."""
    found: list[dict[str, Any]] = []
    left: list[str] = []
    for name, budget in budgets.budgets.items():
        try:
            if budget.tenant is not None:
                raise _UnsayableError(
                    "tenants share machines, and a cloud's bill does not tell them apart"
                )
            found += _WRITERS[cloud](name, budget, budgets, left)
        except _UnsayableError as reason:
            left.append(f"{name}: {reason}")
    return Definitions(tuple(found), tuple(left))


def _addresses(budget: Budget) -> list[str]:
    found = [one for one in budget.notify if "@" in one]
    if not found:
        raise _UnsayableError("notify holds no e-mail address, and the cloud has to tell somebody")
    return found


def _tags(budget: Budget) -> list[tuple[TagKey, str]]:
    return sorted(budget.tags.items(), key=lambda item: KEYS.index(item[0]))


def _aws(name: str, budget: Budget, budgets: Budgets, left: list[str]) -> Iterator[dict[str, Any]]:
    """The request of CreateBudget, less its AccountId: `aws budgets create-budget
    --cli-input-json`."""
    if budget.period not in _AWS_UNITS:
        raise _UnsayableError(f"AWS has no budgets of a {budget.period}")
    limit = budgets.limit(name)
    described: dict[str, Any] = {
        "BudgetName": name,
        "BudgetType": "COST",
        "BudgetLimit": {"Amount": f"{limit.amount:f}", "Unit": limit.currency},
        "TimeUnit": _AWS_UNITS[budget.period],
        "Metrics": ["UnblendedCost"],
    }
    tags: list[dict[str, Any]] = [
        {"Tags": {"Key": key, "Values": [value], "MatchOptions": ["EQUALS"]}}
        for key, value in _tags(budget)
    ]
    if tags:
        described["FilterExpression"] = tags[0] if len(tags) == 1 else {"And": tags}
    kinds = ["ACTUAL", "FORECASTED"] if budget.period != "day" else ["ACTUAL"]
    if budget.period == "day":
        left.append(f"{name}: forecasts: AWS makes none for a day")
    subscribers = [{"SubscriptionType": "EMAIL", "Address": one} for one in _addresses(budget)]
    yield {
        "Budget": described,
        "NotificationsWithSubscribers": [
            {
                "Notification": {
                    "NotificationType": kind,
                    "ComparisonOperator": "GREATER_THAN",
                    "Threshold": threshold,
                    "ThresholdType": "PERCENTAGE",
                },
                "Subscribers": subscribers,
            }
            for kind in kinds
            for threshold in budget.thresholds
        ],
    }


def _azure(
    name: str, budget: Budget, budgets: Budgets, left: list[str]
) -> Iterator[dict[str, Any]]:
    """Resources of an ARM template for a subscription; its parameter `startDate` is the first of a
    month. The amount is in the currency of the billing account."""
    del left
    if budget.period != "month":
        raise _UnsayableError(f"Azure has no budgets of a {budget.period}")
    addresses = _addresses(budget)
    notifications = {
        f"{kind}-{threshold:g}": {
            "enabled": True,
            "operator": "GreaterThanOrEqualTo",
            "threshold": threshold,
            "thresholdType": kind,
            "contactEmails": addresses,
        }
        for kind in ("Actual", "Forecasted")
        for threshold in budget.thresholds
    }
    tags = [
        {"tags": {"name": key, "operator": "In", "values": [value]}} for key, value in _tags(budget)
    ]
    keys = list(notifications)
    # Too many for one budget are told by several of the same amount.
    for number in range(0, len(keys), _AZURE_NOTIFICATIONS):
        part = {key: notifications[key] for key in keys[number : number + _AZURE_NOTIFICATIONS]}
        properties: dict[str, Any] = {
            "category": "Cost",
            "amount": float(budgets.limit(name).amount),
            "timeGrain": "Monthly",
            "timePeriod": {"startDate": "[parameters('startDate')]"},
            "notifications": part,
        }
        if tags:
            properties["filter"] = tags[0] if len(tags) == 1 else {"and": tags}
        yield {
            "type": "Microsoft.Consumption/budgets",
            "apiVersion": "2024-08-01",
            "name": name if number == 0 else f"{name}-{number // _AZURE_NOTIFICATIONS + 1}",
            "properties": properties,
        }


def azure_template(resources: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Azure's resources as a template: `az deployment sub create --template-file`."""
    schema = "https://schema.management.azure.com/schemas/2018-05-01/"
    return {
        "$schema": f"{schema}subscriptionDeploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "startDate": {"type": "string", "metadata": {"description": "The first of a month."}}
        },
        "resources": list(resources),
    }


def _google(
    name: str, budget: Budget, budgets: Budgets, left: list[str]
) -> Iterator[dict[str, Any]]:
    """A Budget of the Cloud Billing Budget API, version 1; billing account administrators hear of
    it, and the channels that are set for it there."""
    del left
    if budget.period != "month":
        raise _UnsayableError(f"Google has no budgets of a {budget.period}")
    tags = _tags(budget)
    if len(tags) > 1:
        raise _UnsayableError("Google's budgets take one label, and this one has several tags")
    if len(name) > _GOOGLE_NAME:
        raise _UnsayableError(f"Google's budgets have names of {_GOOGLE_NAME} characters at most")
    limit = budgets.limit(name)
    units, rest = divmod(limit.amount, 1)
    bounds: dict[str, Any] = {"calendarPeriod": "MONTH"}
    if tags:
        [(key, value)] = tags
        bounds["labels"] = {key: [value]}
    yield {
        "displayName": name,
        "budgetFilter": bounds,
        "amount": {
            "specifiedAmount": {
                "currencyCode": limit.currency,
                "units": str(int(units)),
                "nanos": int(rest * Decimal(10) ** 9),
            }
        },
        "thresholdRules": [
            {"thresholdPercent": threshold / 100, "spendBasis": basis}
            for basis in ("CURRENT_SPEND", "FORECASTED_SPEND")
            for threshold in budget.thresholds
        ],
    }


_WRITERS = {"aws": _aws, "azure": _azure, "google": _google}
