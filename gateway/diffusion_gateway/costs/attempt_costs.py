"""What an attempt cost, and who is charged for it once it is clear how it ended."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from diffusion_gateway.costs.accounts import Accounts
from diffusion_gateway.costs.spending import Spending, Spent
from diffusion_gateway.job import Checkpoint, Job, Result

if TYPE_CHECKING:
    from diffusion_gateway.estimates import Estimator
    from diffusion_gateway.metrics import Metrics


class AttemptCosts:
    """The costs of one attempt at a job. One of its endings is called, once.

    Attributes:
        spending: what it takes, as it goes.
    """

    def __init__(
        self, job: Job, accounts: Accounts, estimator: Estimator, metrics: Metrics
    ) -> None:
        self.spending = Spending(Spent.until(job.checkpoint))
        self._job = job
        self._accounts = accounts
        self._estimator = estimator
        self._metrics = metrics
        self._entry = f"{job.id}/{uuid.uuid4().hex[:12]}"

    def of_result(self, result: Result) -> Result:
        """The result with all that its pictures have cost, over several attempts maybe."""
        self.spending.told(result.device_seconds)
        useful = self.spending.useful
        cost = self._accounts.cost(useful, self.spending.quote)
        return result.model_copy(update={"device_seconds": useful.device_seconds, "cost": cost})

    # Endings.

    async def used(self, images: int) -> None:
        """The job has its pictures."""
        await self._charge("used", self.spending.useful, images)
        await self._charge("repeated", self.spending.repeated)

    async def failed(self) -> None:
        """The job has failed."""
        await self._charge("failed", self.spending.useful)
        await self._charge("repeated", self.spending.repeated)

    async def cancelled(self, step: int) -> None:
        """Nobody wants the pictures any more; `step` steps were done."""
        self._assume(step)
        await self._charge("cancelled", self.spending.useful)
        await self._charge("repeated", self.spending.repeated)

    async def lost(self, step: int, kept: Checkpoint | None, *, ended: bool) -> None:
        """Its worker or server was lost; the job goes on from what is `kept`, or has `ended`."""
        self._assume(step)
        saved = Spent.until(kept)
        await self._charge("lost", self.spending.useful - saved)
        await self._charge("repeated", self.spending.repeated)
        if ended:
            await self._charge("failed", saved)

    async def handed_on(self, step: int, kept: Checkpoint | None) -> None:
        """The job goes on elsewhere from what is `kept`, for no fault of its server's."""
        self._assume(step)
        again = self.spending.useful - Spent.until(kept)
        await self._charge("repeated", self.spending.repeated + again)

    def _assume(self, step: int) -> None:
        # Where no steps are told, all of them may have been done.
        steps = step or self._job.steps
        self.spending.assume(self._estimator.device_seconds(self._job, steps))

    async def _charge(self, bucket: str, spent: Spent, images: int = 0) -> None:
        charged = await self._accounts.charge(
            self._job, bucket, spent, self.spending.quote, self._entry, images=images
        )
        if charged and bucket != "used":
            self._metrics.wasted(self._job.model, spent.device_seconds)
