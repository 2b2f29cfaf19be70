"""What a submission says to the gateway itself, beside the picture's own fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.errors import InvalidFieldError
from diffusion_core.validation import invalid_field
from diffusion_gateway.job import Priority, Webhook

MAX_DEADLINE_S = 604_800
"""A week: nobody keeps a queue for longer."""

REFUSED = {
    "stream": "jobs are watched at /jobs/{id}/events or /ws/jobs/{id}",
    "timeout_s": "name a deadline instead, in seconds from now",
    "checkpoint": "the gateway takes and uses checkpoints itself",
    "checkpoint_every": "the gateway takes and uses checkpoints itself",
}

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("must be a web address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
        raise ValueError("must be an http or https address")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must hold no user, password or fragment")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be ASCII without spaces")
    return url


class WebhookOption(BaseModel):
    """Where to tell of the job's events, and of which."""

    model_config = _STRICT

    url: Annotated[str, Field(max_length=2048), AfterValidator(_web_address)]
    events: list[Literal["start", "progress", "completed"]] = Field(
        ["completed"], min_length=1, max_length=3
    )


class JobOptions(BaseModel):
    """How the gateway is to treat the job."""

    model_config = _STRICT

    model: str | None = Field(None, max_length=200)
    """May be left out where one model is served."""
    priority: Literal["high", "normal", "low"] = "normal"
    deadline: float | None = Field(None, gt=0, le=MAX_DEADLINE_S)
    """Seconds from now after which the pictures are of no use."""
    webhook: WebhookOption | None = None
    cache: bool = True
    """False: neither take the result from the cache nor keep it there."""

    @property
    def asked_priority(self) -> Priority:
        """The priority as stores know it."""
        return Priority(self.priority)

    @property
    def hook(self) -> Webhook | None:
        """The webhook as jobs keep it."""
        if self.webhook is None:
            return None
        return Webhook(url=self.webhook.url, events=tuple(dict.fromkeys(self.webhook.events)))


def split(fields: Mapping[str, Any], *, form: bool) -> tuple[JobOptions, dict[str, Any]]:
    """A submission's options, and the rest: the model's own fields.

    `InvalidFieldError` names what is wrong, and what the gateway has other ways for.
    """
    for name, reason in REFUSED.items():
        if name in fields:
            raise InvalidFieldError(f"{name}: not here; {reason}", field=name)
    ours = {name: fields[name] for name in JobOptions.model_fields if name in fields}
    rest = {name: value for name, value in fields.items() if name not in ours}
    try:
        return _of_form(ours) if form else JobOptions.model_validate(ours), rest
    except ValidationError as error:
        raise invalid_field(error) from None


def _of_form(fields: dict[str, Any]) -> JobOptions:
    """Form fields are text; a webhook is JSON text there."""
    for name, value in fields.items():
        if not isinstance(value, str):
            raise InvalidFieldError(f"{name}: must be text, not a file", field=name)
    text = fields.pop("webhook", None)
    options = JobOptions.model_validate_strings(fields)
    if text is None:
        return options
    try:
        webhook = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidFieldError("webhook: must be a JSON object", field="webhook") from None
    return options.model_copy(
        update={"webhook": JobOptions.model_validate({"webhook": webhook}).webhook}
    )
