"""What a review raises its voice about, as Alertmanager takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any, Literal

from diffusion_costs.review.anomalies import Anomaly
from diffusion_costs.review.metering import Meters, seconds
from diffusion_costs.review.settings import Watch
from diffusion_costs.review.spending import Spending

Severity = Literal["info", "warning", "critical"]

# The names are those of Prometheus's own alerts on costs: a page of the runbooks serves both.
_BUDGETS: tuple[tuple[int, Severity], ...] = ((100, "critical"), (75, "warning"), (50, "info"))

STANDS = timedelta(hours=26)
"""So long an alert stands without being sent again: a daily report renews it, with two hours to
spare, and what the report no longer says ends. Without an end Alertmanager would call it over after
its own `resolve_timeout`, which is minutes."""


@dataclass(frozen=True)
class Alert:
    """Something that somebody should look at; `summary` says what, with figures."""

    name: str
    severity: Severity
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def document(
        self, runbook: str, now: datetime, installation: Mapping[str, str]
    ) -> dict[str, Any]:
        """The body of Alertmanager's API, version 2; the same labels are the same alert.

        Args:
            runbook: what the address of a section begins with.
            now: with a time zone.
            installation: service and environment, as Prometheus has them on its alerts; an alert
                that has its own keeps them.
        """
        return {
            "labels": {
                **installation,
                "alertname": self.name,
                "severity": self.severity,
                # As the receivers know what concerns those who pay.
                "topic": "cost",
                "source": "bill",
                **self.labels,
            },
            "annotations": {"summary": self.summary, "runbook_url": runbook + self.name.lower()},
            "startsAt": now.isoformat(),
            "endsAt": (now + STANDS).isoformat(),
        }


def budget_alerts(spendings: Iterable[Spending], currency: str) -> Iterator[Alert]:
    """One for each budget whose threshold is reached, actual, and one where it is foretold."""
    for one in spendings:
        labels = _labels(one)
        actual = one.reached(one.spent)
        if actual is not None:
            yield Alert(
                f"BudgetSpent{_step(actual)[0]}",
                _step(actual)[1],
                f"{one.name} ({one.whose}): {one.spent:,.2f} {currency} spent by {one.last}, "
                f"{actual:g} % of {one.limit:,.2f} reached.",
                {**labels, "threshold": f"{actual:g}"},
            )
        foretold = one.reached(one.expected)
        if foretold is not None and foretold > (actual or 0) and one.expected is not None:
            yield Alert(
                f"BudgetForecast{_step(foretold)[0]}",
                "warning" if foretold >= 100 else "info",
                f"{one.name} ({one.whose}): {one.expected:,.2f} {currency} are to be expected by "
                f"{one.ends} (90 %: {one.low:,.2f} to {one.high:,.2f}), "
                f"{foretold:g} % of {one.limit:,.2f} reached.",
                {**labels, "threshold": f"{foretold:g}"},
            )


def _labels(spending: Spending) -> dict[str, str]:
    """As Prometheus's alerts have them, by which receivers know which alerts speak of the same."""
    own = {key: spending.tags[key] for key in ("service", "environment") if key in spending.tags}
    tenant = {} if spending.tenant is None else {"tenant": spending.tenant}
    return {**own, "budget": spending.name, **tenant}


def _step(threshold: float) -> tuple[int, Severity]:
    """The highest step of the alerts' names that a threshold has reached."""
    return next((one for one in _BUDGETS if threshold >= one[0]), _BUDGETS[-1])


def anomaly_alerts(anomalies: Iterable[Anomaly], what: str, currency: str) -> Iterator[Alert]:
    """One for each anomaly in the cost of `what`; a drop is told too, for it may be a fault."""
    egress = what == "egress"
    for one in anomalies:
        stayed = "; it has stayed so" if one.kind == "level" else ""
        yield Alert(
            "EgressUnusual" if egress else "CostAnomaly",
            "info" if one.kind == "drop" else "warning",
            f"{one.day}: {what} cost {one.actual:,.2f} {currency} where weekday and trend lead to "
            f"expect {one.expected:,.2f} ({one.deviations:+.1f} deviations){stayed}.",
            {"day": one.day.isoformat(), "what": what},
        )


@dataclass(frozen=True)
class DeviceDay:
    """A day of the devices: how many were held on average, the part of the time in which they
    worked, and images for each hour of one."""

    day: date
    devices: float
    use: float
    images_an_hour: float


def device_days(meters: Meters) -> list[DeviceDay]:
    """The days on which devices were held, in order."""
    found = []
    for day in sorted({row.day for row in meters.held}):
        within = meters.between(day, day)
        held = seconds(within.held)
        if held:
            images = sum(row.images for row in within.served)
            use = seconds(within.charged) / held
            found.append(DeviceDay(day, held / 86400, use, images / held * 3600))
    return found


def waste_alerts(days: list[DeviceDay], since: date, watch: Watch) -> Iterator[Alert]:
    """Devices that work little for long, and many of them without throughput; runs of days that
    reach past `since` and are the last of `days` or over, each told once."""
    for run in _runs(days, [day.use < watch.least_use for day in days], watch.use_days, since):
        use = sum(day.use for day in run) / len(run)
        yield Alert(
            "GpuIdleLong",
            "warning",
            f"{run[0].day} to {run[-1].day}: devices worked {use:.0%} of the time, less than "
            f"{watch.least_use:.0%} on each day.",
            {"since": run[0].day.isoformat()},
        )
    if len(days) < 7:
        return
    usual_devices = median(day.devices for day in days)
    usual_images = median(day.images_an_hour for day in days)
    idle = [
        day.devices > watch.more_devices * usual_devices
        and day.images_an_hour < watch.less_throughput * usual_images
        for day in days
    ]
    for run in _runs(days, idle, watch.throughput_days, since):
        devices = sum(day.devices for day in run) / len(run)
        images = sum(day.images_an_hour for day in run) / len(run)
        yield Alert(
            "MachinesWithoutThroughput",
            "warning",
            f"{run[0].day} to {run[-1].day}: {devices:.1f} devices (usually {usual_devices:.1f}) "
            f"drew {images:.0f} images an hour each (usually {usual_images:.0f}).",
            {"since": run[0].day.isoformat()},
        )


def _runs(
    days: list[DeviceDay], holds: list[bool], least: int, since: date
) -> Iterator[list[DeviceDay]]:
    """Runs of `least` days or more on which something holds, that end at `since` or later."""
    run: list[DeviceDay] = []
    for day, held in zip([*days, None], [*holds, False], strict=True):
        if day is not None and held:
            run.append(day)
            continue
        if len(run) >= least and run[-1].day >= since:
            yield run
        run = []
