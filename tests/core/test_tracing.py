from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from diffusion_core.errors import ConfigError, DeadlineError
from diffusion_core.tracing import Traces, open_traces
from spans import CLIENT, Kept, only, read


def test_off_nothing_is_recorded_and_nobody_is_told_of_a_span() -> None:
    traces = open_traces(None, "nobody")
    with traces.span("accept", CLIENT, job="1") as span:
        span.note(outcome="completed")
        span.failed("none")
    assert not traces.on
    assert span.traceparent is None
    assert traces.record("queue", CLIENT, 1.0, 2.0) is None
    traces.close()


def test_a_span_is_below_its_parent_even_in_another_process() -> None:
    kept = Kept()
    with kept.traces.span("accept", CLIENT) as span:
        below = kept.traces.record("queue", span.traceparent, 1.0, 2.5, model="emoji")
    accept, queue = only(kept.spans, "accept"), only(kept.spans, "queue")
    _, trace, parent, _ = CLIENT.split("-")
    assert (accept.trace, accept.parent) == (trace, parent)
    assert (queue.trace, queue.parent) == (trace, accept.id)
    assert below == f"00-{trace}-{queue.id}-01"
    assert (queue.start, queue.end) == (
        "1970-01-01T00:00:01.000000Z",
        "1970-01-01T00:00:02.500000Z",
    )
    assert queue.attributes == {"diffusion.model": "emoji"}


@pytest.mark.parametrize(
    "parent", [None, "", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
def test_what_is_no_parent_begins_a_trace(parent: str | None) -> None:
    kept = Kept()
    with kept.traces.span("accept", parent):
        pass
    assert only(kept.spans, "accept").parent is None


def test_an_error_is_told_by_its_code_and_not_by_its_words() -> None:
    kept = Kept()
    with pytest.raises(DeadlineError), kept.traces.span("draw"):
        raise DeadlineError("a secret prompt")
    with pytest.raises(ValueError, match="secret"), kept.traces.span("upload"):
        raise ValueError("a secret prompt")
    assert only(kept.spans, "draw").error == "deadline_exceeded"
    assert only(kept.spans, "upload").error == "ValueError"
    assert "secret" not in str(kept.spans)


def test_a_client_that_wants_no_trace_gets_none() -> None:
    kept = Kept()
    with kept.traces.span("accept", CLIENT[:-2] + "00") as span:
        pass
    assert kept.spans == []
    assert span.traceparent is not None
    assert span.traceparent.endswith("-00")


def test_a_clock_that_goes_back_makes_no_span_that_ends_before_it_begins() -> None:
    kept = Kept()
    kept.traces.record("queue", None, 5.0, 3.0)
    assert only(kept.spans, "queue").start == only(kept.spans, "queue").end


def test_processes_share_a_file_of_lines(tmp_path: Path) -> None:
    target = f"file:{tmp_path}/traces/spans.jsonl"
    one, other = open_traces(target, "one"), open_traces(target, "other")
    with one.span("accept") as accept, other.span("request", accept.traceparent):
        pass
    one.close()
    other.close()
    spans = read(tmp_path / "traces" / "spans.jsonl")
    assert {span.service for span in spans} == {"one", "other"}
    assert only(spans, "request").parent == only(spans, "accept").id


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """In the place of a collector, which is no package of Python's: reads OTLP's own messages."""
    came: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == (
                "/v1/traces",
                "application/x-protobuf",
            )
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", came
        server.shutdown()
        thread.join()


def test_a_collector_gets_the_spans_as_otlp() -> None:
    with collector() as (url, came):
        traces = open_traces(url, "diffusion-gateway")
        with traces.span("accept", CLIENT, model="emoji") as span:
            span.failed("queue_full")
        traces.close()
    (resource,) = came[0].resource_spans
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "diffusion-gateway"
    (sent,) = resource.scope_spans[0].spans
    _, trace, parent, _ = CLIENT.split("-")
    assert (sent.name, sent.trace_id.hex(), sent.parent_span_id.hex()) == ("accept", trace, parent)
    attributes = {one.key: one.value.string_value for one in sent.attributes}
    assert attributes == {"diffusion.model": "emoji", "error.type": "queue_full"}
    assert sent.status.message == "queue_full"


@pytest.mark.parametrize("target", ["stdout", "file:", "console:x", "ftp://somewhere"])
def test_another_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="traces: must be console:") as refused:
        open_traces(target, "nobody")
    assert refused.value.field == "traces"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        open_traces(f"file:{tmp_path}/file/spans.jsonl", "nobody")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigError, match="extra `tracing`"):
        open_traces("console:", "nobody")
    assert not Traces().on
