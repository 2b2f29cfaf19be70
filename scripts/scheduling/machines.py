"""A machine as simulators see it: what it costs and how fast it draws."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from diffusion_core.errors import ConfigError
from diffusion_costs.prices import STEPS, Prices, Purchase


@dataclass(frozen=True, slots=True)
class Machine:
    """Prices by the hour, and pictures of `STEPS` steps in one."""

    on_demand: float
    spot: float
    images_per_hour: float

    @classmethod
    def of(cls, prices: Prices, name: str, at: datetime) -> Machine:
        """A machine of the table at a moment; `ConfigError` where the table does not say all."""
        by_purchase = {
            purchase: float(prices.hourly(name, purchase, at).amount)
            for purchase in (Purchase.ON_DEMAND, Purchase.SPOT)
        }
        images = prices.machines[name].images_per_hour
        if images is None:
            raise ConfigError(
                f"machines.{name}: has no images_per_hour",
                field=f"machines.{name}.images_per_hour",
            )
        return cls(**by_purchase, images_per_hour=images)

    @property
    def step_seconds(self) -> float:
        """Seconds of one denoising step."""
        return 3600 / self.images_per_hour / STEPS
