"""The gateway's settings: config/gateway.yaml, each value overridden by GATEWAY_<NAME>; unknown
ones refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error
from diffusion_costs.prices import Purchase

PREFIX = "GATEWAY_"

PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104


def _on_or_off(value: Any) -> Any:
    """YAML reads a plain on or off as a truth value."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class EndpointSettings(BaseModel):
    """A TorchServe or a Triton that draws. `models` empty: all it serves; `key_file`: a
    TorchServe's tokens, read again when they expire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["torchserve", "triton"] = "torchserve"
    inference: str
    """http:// or https:// of a TorchServe, grpc:// or grpcs:// of a Triton, by whose one port all
    goes."""
    management: str | None = None
    pool: Literal["on-demand", "spot"] = "on-demand"
    machine: str | None = None
    """Its name in the price table; None: as the gateway's setting says."""
    machine_share: float = Field(1.0, gt=0, le=1)
    """The part of that machine that this TorchServe has: one GPU of eight is 0.125."""
    purchase: Purchase | None = None
    """How the machine is paid for; None: as its pool says."""
    models: tuple[str, ...] = ()
    key_file: Path | None = None
    certificate: Path | None = None

    @model_validator(mode="after")
    def _of_its_kind(self) -> EndpointSettings:
        triton = self.kind == "triton"
        schemes = ("grpc://", "grpcs://") if triton else ("http://", "https://")
        if not self.inference.startswith(schemes):
            raise ValueError(f"inference: a {self.kind} is at {' or '.join(schemes)}")
        if not triton and self.management is None:
            raise ValueError("management: a torchserve has one")
        if triton and (self.management or self.key_file) is not None:
            raise ValueError("management, key_file: a triton has none")
        return self


class GatewaySettings(BaseModel):
    """All settings. Times in seconds, sizes in bytes unless the name says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # Where it listens, and who may ask.
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    role: Literal["all", "api", "worker"] = "all"
    auth: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = "auto"
    """auto: on unless `host`, and `public_url` where there is one, are loopback addresses."""
    public_url: str | None = None
    """Base of the links that clients get; None: as they asked."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of pages elsewhere that may open WebSockets and event streams; the gateway's own
    may."""

    # What stands behind it.
    endpoints: tuple[EndpointSettings, ...] = (
        EndpointSettings(inference="http://127.0.0.1:8080", management="http://127.0.0.1:8081"),
    )
    store_url: str = "sqlite:run/gateway/jobs.sqlite"
    """sqlite:PATH, redis://… or rediss://…"""
    results_url: str = "file:run/gateway/results"
    """file:PATH, s3://BUCKET/PREFIX, gs://…, az://… or memory:"""
    results_public_url: str | None = None
    """Base of public links to results (a CDN over the storage); None: served or signed by the
    gateway."""
    results_signed: bool = False
    """Sign links to the object storage instead of serving files through the gateway."""

    # What it takes.
    max_body_bytes: PositiveInt = 36_000_000
    max_waiting: PositiveInt = 10_000
    max_active_per_tenant: PositiveInt = 1000
    requests_per_second_per_tenant: Seconds = 50.0
    request_burst_per_tenant: PositiveInt = 200
    max_wait_s: Seconds = 60.0
    """The longest `Prefer: wait=N` that is honoured."""
    max_watchers: PositiveInt = 5000

    # How long things are kept, counted from a job's end.
    record_lifetime_s: Seconds = 3600.0
    result_lifetime_s: Seconds = 86_400.0
    cache_bytes: int = Field(1 << 30, ge=0)
    """Files of cached results, at most; 0: no cache."""
    cache_lifetime_s: Seconds = 86_400.0
    thumbnail_pixels: int = Field(256, ge=0)

    # How work is done.
    lease_s: Seconds = 15.0
    checkpoint_every: int = Field(5, ge=0)
    """Denoising steps between checkpoints, where a model can give them; 0: none."""
    urgent_slack_s: Seconds = 30.0
    """A job is urgent when its deadline is less than this beyond its estimated end."""
    starving_after_s: Seconds = 60.0
    """A job that has waited so long behind urgent ones joins them, one of a tenant at a time."""
    unserved_s: float = Field(86_400.0, ge=7200)
    """A job that has waited so long for a model that nobody has served since fails."""
    drain_s: Seconds = 25.0
    idle_after_s: float = Field(0.0, ge=0)
    """A model without jobs for so long goes to zero workers; 0: never."""
    device_memory_mb: PositiveInt | None = None
    """What the workers of all models together may take on one endpoint; None: no bound."""
    spot_notices: Literal["none", "aws", "gcp", "azure"] = "none"
    gpu_pool: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Which pool of machines scales with what this worker has in hand; None: none does."""

    # What it costs.
    machine: str | None = None
    """What endpoints run on that do not say; None: nothing is priced."""
    prices_file: Path = Path("config/prices.yaml")
    """Read where a machine is named, and by an API that says it: for its budgets' currency."""
    tags_file: Path | None = None
    """None: service diffusion-inference, environment production."""
    budgets_file: Path | None = None
    named_tenants: tuple[str, ...] = ()
    """Tenants with series of their own in the metrics, beside those that budgets name."""
    usage_lifetime_s: Seconds = 34_560_000.0

    # Telling others.
    traces: str | None = None
    """Where spans go: console:, file:PATH or the address of an OpenTelemetry collector; None: no
    spans."""
    webhook_secret: str | None = None
    webhook_private_addresses: bool = False
    webhook_timeout_s: Seconds = 10.0
    webhook_attempts: PositiveInt = 6

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(origin) for origin in origins)

    @field_validator("public_url", "results_public_url")
    @classmethod
    def _are_bases(cls, url: str | None) -> str | None:
        return url if url is None else _base(url)

    @model_validator(mode="after")
    def _consistent(self) -> GatewaySettings:
        if self.auth == "off" and self.host not in _LOOPBACK:
            raise ValueError(f"auth: must be on where host is not a loopback address ({self.host})")
        if self.result_lifetime_s < self.record_lifetime_s:
            raise ValueError("result_lifetime_s: must not be below record_lifetime_s")
        return self

    @property
    def authenticates(self) -> bool:
        """Whether requests need an API key."""
        if self.auth != "auto":
            return self.auth == "on"
        hosts = [self.host]
        if self.public_url is not None:
            hosts.append(urlsplit(self.public_url).hostname or "")
        return any(host not in _LOOPBACK for host in hosts)

    @property
    def own_url(self) -> str:
        """What links begin with where no request says it: clients may know another address."""
        return (self.public_url or f"http://{netloc(self.host, self.port)}").rstrip("/")

    @property
    def linkless(self) -> bool:
        """Whether `own_url` leads clients nowhere: it is no machine's address, or a worker's."""
        return self.public_url is None and (self.host in _EVERYWHERE or self.role == "worker")


def netloc(host: str, port: int) -> str:
    """Host and port as a URL has them: an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(url: str) -> SplitResult:
    """A web address that others can be put behind; `ValueError` for any other text."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError("must be a web address, such as https://draw.example.com") from None
    if not named or not parts.scheme or parts.username is not None:
        raise ValueError("must be a web address, such as https://draw.example.com")
    if parts.query or parts.fragment:
        raise ValueError("must end before any '?' and '#'")
    return parts


def _base(url: str) -> str:
    if _parts(url).scheme not in ("http", "https"):
        raise ValueError("must be an http or https address")
    return url


def _origin(text: str) -> str:
    parts = _parts(text)
    if parts.path not in ("", "/"):
        raise ValueError("must be origins: a scheme, a name and a port, without a path")
    return f"{parts.scheme}://{parts.netloc}".lower()


def read_settings(path: Path | None, overrides: dict[str, Any] | None = None) -> GatewaySettings:
    """Settings from a YAML file, then the environment, then `overrides`; `ConfigError` names
    what is wrong."""
    document = _from_file(path) if path is not None else {}
    document |= _from_environment()
    document |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return GatewaySettings.model_validate(document)
    except ValidationError as error:
        field, message, bound, kind = first_error(error)
        if kind == "extra_forbidden":
            message = "is not a setting of the gateway"
        raise ConfigError(
            f"gateway settings: {field}: {message}", field=field, bound=bound
        ) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(document, dict | None):
        raise ConfigError(f"{path}: must be a mapping of settings")
    return document or {}


def _from_environment() -> dict[str, Any]:
    """GATEWAY_MAX_WAITING=5 as max_waiting: 5; lists and objects are written as YAML."""
    found = {}
    for name, value in os.environ.items():
        if name.startswith(PREFIX):
            # A key or an address stays text even where YAML would read a number or a mapping.
            field = name[len(PREFIX) :].lower()
            known = GatewaySettings.model_fields.get(field)
            text = known is not None and known.annotation in (str, str | None)
            found[field] = value if text else _from_yaml(name, value)
    return found


def _from_yaml(name: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        # Without the value, which may be a secret's.
        raise ConfigError(
            f"{name}: cannot be read as YAML", field=name[len(PREFIX) :].lower()
        ) from None
