"""Money: exact amounts that never mix currencies unasked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext

NANOS = 1_000_000_000
"""Billionths in one unit of a currency: what stores count in, for whole numbers add up exactly."""

_SHOWN = 6
"""Decimal places that a price of pictures needs to be seen at all."""


class CurrencyError(ValueError):
    """Amounts of two currencies met without a rate between them."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount of a currency (ISO 4217, three capitals). Sums and differences are exact."""

    amount: Decimal
    currency: str

    @classmethod
    def of(cls, amount: Decimal | int | float | str, currency: str) -> Money:
        """From a number; a float counts as what it prints."""
        try:
            parsed = Decimal(str(amount))
        except InvalidOperation:
            raise ValueError(f"{amount!r} is no amount of money") from None
        if not parsed.is_finite():
            raise ValueError(f"{amount!r} is no amount of money")
        return cls(parsed, currency)

    @classmethod
    def zero(cls, currency: str) -> Money:
        """Nothing, of a currency."""
        return cls(Decimal(0), currency)

    @classmethod
    def from_nanos(cls, nanos: int, currency: str) -> Money:
        """From billionths."""
        return cls(Decimal(nanos).scaleb(-9), currency)

    @classmethod
    def total(cls, amounts: Iterable[Money], currency: str) -> Money:
        """The sum; nothing of `currency` where there is none."""
        total = cls.zero(currency)
        for amount in amounts:
            total += amount
        return total

    @property
    def nanos(self) -> int:
        """In billionths, rounded half to even."""
        with localcontext(prec=40):
            return int((self.amount * NANOS).to_integral_value())

    def __add__(self, other: Money) -> Money:
        return Money(self.amount + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._same(other), self.currency)

    def __mul__(self, factor: Decimal | int | float) -> Money:
        return Money(self.amount * Decimal(str(factor)), self.currency)

    def __truediv__(self, divisor: Decimal | int | float) -> Money:
        return Money(self.amount / Decimal(str(divisor)), self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: Money) -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: Money) -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: Money) -> bool:
        return self.amount >= self._same(other)

    def ratio(self, other: Money) -> float:
        """This amount over another one of its currency."""
        return float(self.amount / self._same(other))

    def plain(self, places: int = _SHOWN) -> str:
        """The amount as decimal text, without an exponent."""
        return f"{self.amount:.{places}f}"

    def told(self) -> str:
        """For people, who reckon in hundredths."""
        return f"{self.amount:,.2f} {self.currency}"

    def __str__(self) -> str:
        return f"{self.plain()} {self.currency}"

    def _same(self, other: Money) -> Decimal:
        if other.currency != self.currency:
            raise CurrencyError(f"{self.currency} and {other.currency} cannot be reckoned together")
        return other.amount
