"""Spans of requests, through OpenTelemetry, where a deployment asks for them.

Who goes through which process is passed on as a `traceparent` (W3C Trace Context). Off, which is
the default, nothing is recorded and OpenTelemetry need not be installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OpenSpan

VARIABLE = "DIFFUSION_TRACES"
"""The environment variable that tells workers of model servers where spans go."""

HEADER = "traceparent"

_PER_S = 1_000_000_000

Attribute = str | bool | int | float


class Span:
    """A span under way, or none where spans are off.

    Attributes:
        traceparent: what those pass on who work for it; None where spans are off.
    """

    def __init__(self, opened: OpenSpan | None = None, traceparent: str | None = None) -> None:
        self.traceparent = traceparent
        self._opened = opened

    def note(self, **attributes: Attribute | None) -> None:
        """Adds attributes; never what a client wrote."""
        if self._opened is not None:
            self._opened.set_attributes(_named(attributes))

    def failed(self, code: str) -> None:
        """Marks it as ended by an error with that code."""
        if self._opened is not None:
            from opentelemetry.trace import StatusCode

            self._opened.set_status(StatusCode.ERROR, code)
            self._opened.set_attribute("error.type", code)


class Traces:
    """Where spans are recorded; without a provider they are not.

    Args:
        file: closed with the traces.
    """

    def __init__(self, provider: TracerProvider | None = None, file: IO[str] | None = None) -> None:
        self._provider = provider
        self._file = file
        self._tracer = None if provider is None else provider.get_tracer("torchserve-diffusers")

    @property
    def on(self) -> bool:
        """Whether anything is recorded."""
        return self._tracer is not None

    @contextmanager
    def span(
        self, name: str, parent: str | None = None, **attributes: Attribute | None
    ) -> Iterator[Span]:
        """A span for as long as the block runs, below the `traceparent` that is its parent's.

        An exception marks it by its kind: its message may hold what a client sent.
        """
        if self._tracer is None:
            yield Span()
            return
        opened = self._open(name, parent, None, attributes)
        span = Span(opened, _traceparent(opened))
        try:
            yield span
        except BaseException as error:
            span.failed(str(getattr(error, "code", type(error).__name__)))
            raise
        finally:
            opened.end()

    def record(
        self,
        name: str,
        parent: str | None,
        start: float,
        end: float,
        *,
        error: str | None = None,
        **attributes: Attribute | None,
    ) -> str | None:
        """Records a span that is over, times in seconds since 1970; returns its `traceparent`."""
        if self._tracer is None:
            return None
        opened = self._open(name, parent, start, attributes)
        traceparent = _traceparent(opened)
        if error is not None:
            Span(opened).failed(error)
        opened.end(end_time=round(max(start, end) * _PER_S))
        return traceparent

    def close(self) -> None:
        """Sends what is still kept, and ends the sending."""
        if self._provider is not None:
            self._provider.shutdown()
        if self._file is not None:
            self._file.close()

    def _open(
        self, name: str, parent: str | None, start: float | None, attributes: dict[str, Any]
    ) -> OpenSpan:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        assert self._tracer is not None
        carrier = {} if parent is None else {HEADER: parent}
        return self._tracer.start_span(
            name,
            context=TraceContextTextMapPropagator().extract(carrier),
            attributes=_named(attributes),
            start_time=None if start is None else round(start * _PER_S),
        )


def open_traces(target: str | None, service: str) -> Traces:
    """Traces whose spans go to `target`, under the name of a service.

    Args:
        target: `console:`, `file:PATH` (a JSON line for each span), or the address of a collector
            that takes OTLP over HTTP (`http://127.0.0.1:4318/v1/traces`); None: off. Sampling,
            headers and batches are set by OpenTelemetry's own environment variables.

    Raises:
        ConfigError: `target` is none of these, or OpenTelemetry is not installed.
    """
    if not target:
        return Traces()
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter, file = _exporter(target)
    except ImportError:
        raise ConfigError(
            "traces: needs OpenTelemetry: install the package with its extra `tracing`",
            field="traces",
        ) from None
    provider = make_provider(service)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return Traces(provider, file)


def make_provider(service: str) -> TracerProvider:
    """A provider without an exporter; the environment chooses the sampler."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from diffusion_core import __version__

    named = {"service.name": service, "service.version": __version__}
    return TracerProvider(resource=Resource.create(named))


def _exporter(target: str) -> tuple[SpanExporter, IO[str] | None]:
    """What sends spans to `target`, and the file that it writes to, if it does."""
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    def line(span: Any) -> str:
        return str(span.to_json(indent=None)) + "\n"

    scheme, _, rest = target.partition(":")
    if scheme == "console" and not rest:
        return ConsoleSpanExporter(formatter=line), None
    if scheme == "file" and rest:
        file = _appended(Path(rest))
        return ConsoleSpanExporter(out=file, formatter=line), file
    if scheme in ("http", "https"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=target), None
    raise ConfigError(
        "traces: must be console:, file:PATH, or the http address of a collector", field="traces"
    )


def _appended(path: Path) -> IO[str]:
    """A file that several processes write whole lines to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise ConfigError(
            f"traces: {path} cannot be written: {error.strerror}", field="traces"
        ) from None


def _named(attributes: dict[str, Any]) -> dict[str, Attribute]:
    """In this project's namespace, which OpenTelemetry asks of names that are not its own."""
    return {f"diffusion.{name}": value for name, value in attributes.items() if value is not None}


def _traceparent(opened: OpenSpan) -> str:
    context = opened.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
