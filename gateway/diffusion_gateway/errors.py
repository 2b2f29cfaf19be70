"""Errors of the gateway, beside those of core; each with its status, code and kind."""

from __future__ import annotations

from diffusion_core.errors import ServingError


class UnknownJobError(ServingError):
    """There is no such job, or it is not this tenant's."""

    status = 404
    code = "unknown_job"
    kind = "client"

    def __init__(self) -> None:
        super().__init__("there is no such job; records are deleted some time after a job's end")


class UnknownModelError(ServingError):
    """No endpoint serves a model of this name."""

    status = 404
    code = "unknown_model"
    kind = "client"


class UnknownFileError(ServingError):
    """The object storage has no such file (any more)."""

    status = 404
    code = "unknown_file"
    kind = "client"

    def __init__(self) -> None:
        super().__init__("there is no such file; results are deleted some time after a job's end")


class IdempotencyConflictError(ServingError):
    """The idempotency key was used with another body."""

    status = 409
    code = "idempotency_conflict"
    kind = "client"

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: was used with another request", field="Idempotency-Key")


class BodyTooLargeError(ServingError):
    """The request's body is larger than the gateway takes."""

    status = 413
    code = "body_too_large"
    kind = "client"


class BudgetSpentError(ServingError):
    """The tenant has spent what it may spend in this period; `bound` holds the amounts."""

    status = 402
    code = "budget_spent"
    kind = "client"


class UnauthorizedError(ServingError):
    """No API key, or one that is not known."""

    status = 401
    code = "unauthorized"
    kind = "client"


class ForbiddenError(ServingError):
    """The caller may not do this."""

    status = 403
    code = "forbidden"
    kind = "client"


class RateLimitError(ServingError):
    """The tenant asks more often than it may."""

    status = 429
    code = "rate_limited"
    kind = "client"


class TooManyJobsError(ServingError):
    """The tenant has as many unfinished jobs as it may have."""

    status = 429
    code = "too_many_jobs"
    kind = "client"

    def __init__(self, max_active: int) -> None:
        super().__init__(
            f"{max_active} of this tenant's jobs have not ended yet",
            bound={"max_active": max_active},
        )


class QueueFullError(ServingError):
    """The queue holds as many jobs as it may."""

    status = 503
    code = "queue_full"
    kind = "infrastructure"

    def __init__(self, max_waiting: int) -> None:
        super().__init__(f"{max_waiting} jobs wait already", bound={"max_waiting": max_waiting})


class StoreUnavailableError(ServingError):
    """The job store cannot be reached or cannot keep anything: nothing was changed."""

    status = 503
    code = "store_unavailable"
    kind = "infrastructure"


class StoreUnansweredError(StoreUnavailableError):
    """The job store was asked and has not answered: it may have done it, or do so yet."""


class ResultsUnavailableError(ServingError):
    """The object storage cannot be reached or refuses."""

    status = 503
    code = "results_unavailable"
    kind = "infrastructure"


class UpstreamError(ServingError):
    """A model server failed or could not be reached; the job may go on elsewhere."""

    status = 502
    code = "upstream_error"
    kind = "upstream"


class UnservedError(ServingError):
    """No worker has served the job's model for as long as jobs may wait for one."""

    status = 503
    code = "model_unserved"
    kind = "infrastructure"

    def __init__(self) -> None:
        super().__init__("no worker serves the model any more; the job has waited for one in vain")


class AttemptsExhaustedError(ServingError):
    """Every attempt took its worker down or lost it."""

    status = 500
    code = "attempts_exhausted"
    kind = "infrastructure"
