"""Accounts: who is charged for which device time, and who has spent what they may."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from diffusion_core.errors import ConfigError
from diffusion_costs.budgets import EACH, Budgets, Window
from diffusion_costs.money import CurrencyError, Money
from diffusion_costs.tags import Tags
from diffusion_gateway.costs.metrics import CostMetrics
from diffusion_gateway.costs.spending import Spent
from diffusion_gateway.costs.tariff import Quote, Tariff
from diffusion_gateway.errors import BudgetSpentError
from diffusion_gateway.job import Cost, Job
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.stores.usage import Usage, slot_of

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from diffusion_gateway.settings import GatewaySettings

SERVICE = "_service"
"""Is charged what no tenant asked for. No tenant can have this name."""

OTHER = "_other"
"""In metrics: a tenant that is not configured."""

_TENANTS_OWN = ("used", "cancelled")
"""Buckets that the tenant is charged: what it got, and what it did not want any more."""

_SERVICES = ("failed", "repeated", "lost")
"""Buckets that the service is charged."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant has spent of a budget in the period under way."""

    name: str
    spent: Money
    limit: Money
    window: Window


class Accounts:
    """Charges, and refuses.

    Args:
        clock: seconds since 1970.

    Raises `ConfigError` where prices, tags and budgets do not go together.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        store: JobStore,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tariff = Tariff(settings, clock)
        self.tags = Tags() if settings.tags_file is None else Tags.read(settings.tags_file)
        self.budgets = (
            Budgets() if settings.budgets_file is None else Budgets.read(settings.budgets_file)
        )
        self.metrics = CostMetrics(registry, self.tags)
        self._store = store
        self._clock = clock
        self._named = self.budgets.tenants | set(settings.named_tenants)
        self._served: set[str] = set()
        self._check_budgets()
        for one in settings.endpoints:
            self.metrics.held(self.tariff.machine(one), 0, 0.0, 1)
        prices = self.tariff.prices
        if prices is not None:
            after = prices.good_until + timedelta(days=1)
            self.metrics.prices(_begin(prices.as_of), _begin(after))

    def serves(self, model: str) -> None:
        """A model's jobs may be charged from now on; told as often as one likes."""
        if model in self._served:
            return
        self._served.add(model)
        quote = Quote(currency=self.tariff.currency)
        self.metrics.serves(model, {*self._named, OTHER}, _TENANTS_OWN, quote)
        self.metrics.serves(model, {SERVICE}, _SERVICES, quote)

    def cost(self, spent: Spent, quote: Quote) -> Cost | None:
        """What a job's record says that it cost; None where nothing is priced."""
        if self.tariff.prices is None or not quote.currency:
            return None
        return Cost(
            nanos=spent.nanos,
            currency=quote.currency,
            machine=quote.machine,
            purchase=quote.purchase,
            prices_as_of=self.tariff.prices.as_of.isoformat(),
        )

    async def charge(
        self, job: Job, bucket: str, spent: Spent, quote: Quote, entry: str, *, images: int = 0
    ) -> bool:
        """Charges device time of a job, to its tenant or to the service; once for each `entry`,
        False the next time."""
        if spent.device_seconds <= 0 and not images:
            return False
        tenant = job.tenant if bucket in _TENANTS_OWN else SERVICE
        now = self._clock()
        usage = Usage(
            slot=slot_of(now),
            tenant=tenant,
            model=job.model,
            bucket=bucket,
            machine=quote.machine,
            purchase=quote.purchase,
            currency=quote.currency,
            nanos=spent.nanos,
            micros=round(spent.device_seconds * 1e6),
            jobs=1 if bucket == "used" else 0,
            images=images,
        )
        if not await self._store.charge(f"{entry}/{bucket}", usage, now):
            return False
        self.metrics.charged(
            job.model, self._label(tenant), bucket, quote, spent.nanos, spent.device_seconds
        )
        return True

    async def hold(self, quote: Quote, seconds: float, workers: int, entry: str) -> None:
        """Charges a machine's time, used or not, once for each `entry`."""
        now, nanos = self._clock(), quote.nanos(seconds)
        # One that has no worker yet is held all the same.
        workers = max(1, workers)
        usage = Usage(
            slot=slot_of(now),
            tenant=SERVICE,
            model="",
            bucket="held",
            machine=quote.machine,
            purchase=quote.purchase,
            currency=quote.currency,
            nanos=nanos,
            micros=round(seconds * workers * 1e6),
        )
        if await self._store.charge(entry, usage, now):
            self.metrics.held(quote, nanos, seconds, workers)

    async def check(self, tenant: str) -> None:
        """Raises `BudgetSpentError` where the tenant has spent a hard budget."""
        for name, budget in self.budgets.of_tenant(tenant).items():
            if not budget.hard:
                continue
            found = await self.standing(tenant, name)
            if found.spent < found.limit:
                continue
            raise BudgetSpentError(
                f"{found.spent} of {found.limit} a {budget.period} are spent",
                bound={
                    "budget": name,
                    "limit": found.limit.plain(),
                    "spent": found.spent.plain(),
                    "currency": found.limit.currency,
                    "period": budget.period,
                    "resets_at": found.window.end.isoformat().replace("+00:00", "Z"),
                },
                retry_after=max(0.0, found.window.end.timestamp() - self._clock()),
            )

    def refused(self, error: BudgetSpentError) -> None:
        """Counts a submission that was answered with this."""
        self.metrics.refused((error.bound or {})["budget"])

    async def standing(self, tenant: str, name: str) -> Standing:
        """How a tenant stands with a budget, in the budget's currency."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        limit, window = self.budgets.limit(name), self.budgets.window(name, now)
        currency = self.tariff.currency or limit.currency
        nanos = await self._store.spent(
            *(tenant, currency, slot_of(window.start.timestamp())),
            slot_of(window.end.timestamp()),
        )
        spent = self._in(Money.from_nanos(nanos, currency), limit.currency)
        return Standing(name, spent, limit, window)

    async def show_budgets(self) -> None:
        """Tells in the metrics how the budgets of tenants stand."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        for name, budget in self.budgets.budgets.items():
            if budget.tenant is None:
                continue
            tenants = self._named if budget.tenant == EACH else {budget.tenant}
            amounts = {}
            for tenant in tenants:
                if name in self.budgets.of_tenant(tenant):
                    found = await self.standing(tenant, name)
                    key = (tenant, found.limit.currency)
                    amounts[key] = (float(found.spent.amount), float(found.limit.amount))
            self.metrics.budget(name, self.budgets.window(name, now).elapsed(now), amounts)

    def _check_budgets(self) -> None:
        for name, budget in self.budgets.budgets.items():
            if budget.tenant is None:
                continue
            if budget.hard:
                self.metrics.hard(name)
            if budget.hard and self.tariff.prices is None:
                raise ConfigError(
                    f"budgets_file: {name} is hard, but nothing is priced: name a machine, or the "
                    "prices_file of the workers where the role is api",
                    field="machine",
                )
            try:
                self._in(self.budgets.limit(name), self.tariff.currency)
            except CurrencyError as error:
                raise ConfigError(f"budgets_file: {name}: {error}", field="budgets_file") from None

    def _in(self, money: Money, currency: str) -> Money:
        if self.tariff.prices is None:
            return money
        return self.tariff.prices.convert(
            money, currency, datetime.fromtimestamp(self._clock(), UTC)
        )

    def _label(self, tenant: str) -> str:
        return tenant if tenant == SERVICE or tenant in self._named else OTHER


def _begin(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
