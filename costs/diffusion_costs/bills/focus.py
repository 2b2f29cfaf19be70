"""The columns of a FOCUS billing export (FinOps Open Cost and Usage Specification, 1.0 to 1.2).

A provider's export is read for the columns below; it may hold others. What a column must hold is
from the specification, https://focus.finops.org/focus-specification/.
"""

from __future__ import annotations

from collections.abc import Collection

COSTS = ("BilledCost", "EffectiveCost")
TIMES = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
NAMES = ("BillingCurrency", "ChargeCategory", "ServiceCategory", "ServiceName", "ProviderName")
NEEDED = (*COSTS, *TIMES, *NAMES, "BillingAccountId")
"""Mandatory in 1.0, 1.1 and 1.2, and never null."""

OPTIONAL = (
    "Tags",
    "ChargeClass",
    "ChargeDescription",
    "InvoiceId",
    "RegionId",
    "ResourceType",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
)
"""Read where they are there; without `Tags` every charge is untagged."""

CHARGE_CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")

SERVICE_CATEGORIES = (
    "AI and Machine Learning",
    "Analytics",
    "Business Applications",
    "Compute",
    "Databases",
    "Developer Tools",
    "Identity",
    "Integration",
    "Internet of Things",
    "Management and Governance",
    "Media",
    "Migration",
    "Mobile",
    "Multicloud",
    "Networking",
    "Other",
    "Security",
    "Storage",
    "Web",
)

# Columns by which an export tells its version: the newest that has one of its own.
_SINCE = {
    "1.2": (
        "BillingAccountType",
        "InvoiceId",
        "PricingCurrency",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost",
        "PricingCurrencyListUnitPrice",
        "SubAccountType",
    ),
    "1.1": (
        "CapacityReservationId",
        "CapacityReservationStatus",
        "CommitmentDiscountQuantity",
        "CommitmentDiscountUnit",
        "ServiceSubcategory",
        "SkuMeter",
        "SkuPriceDetails",
    ),
}


class BillError(Exception):
    """A billing export, or what goes with it, cannot be read; the message names file and column."""


def version(columns: Collection[str], source: str) -> str:
    """The FOCUS version that `columns` are of; `BillError` where a needed one is missing.

    Exports do not say their version in the file: the columns that came with a version tell it.
    """
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise BillError(
            f"{source}: {', '.join(missing)}: no such column; needed of a FOCUS export 1.0 to 1.2 "
            f"are {', '.join(NEEDED)}"
        )
    for number, own in _SINCE.items():
        if any(name in columns for name in own):
            return number
    return "1.0"
