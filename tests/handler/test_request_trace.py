"""A request's spans in the worker, through TorchServe's own context."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from diffusion_core.tracing import Traces
from handler_client import Client
from spans import CLIENT, Kept, named, only

SECRET = "a hedgehog that nobody may hear of"
PHASES = ["parsing", "queue_wait", "encoding", "denoising", "decoding", "image_file"]


@pytest.fixture
def kept(client: Client) -> Iterator[Kept]:
    made = Kept()
    client.handler.traces = made.traces
    yield made
    client.handler.traces = Traces()


def test_phases_follow_each_other_below_the_callers_span(client: Client, kept: Kept) -> None:
    status, *_ = client.one({"prompt": SECRET, "num_inference_steps": 4}, Traceparent=CLIENT)
    assert status == 200
    spans = kept.until("image_file")
    request = only(spans, "request")
    assert (request.trace, request.parent) == tuple(CLIENT.split("-")[1:3])
    phases = [only(spans, name) for name in PHASES]
    assert {phase.parent for phase in phases} == {request.id}
    times = [time for phase in phases for time in (phase.start, phase.end)]
    assert times == sorted(times)
    assert request.attributes["diffusion.steps"] == 4
    assert request.attributes["diffusion.status"] == 200
    assert request.attributes["diffusion.device_seconds"] > 0
    assert SECRET not in str(kept.spans)


def test_requests_of_a_batch_have_traces_of_their_own(client: Client, kept: Kept) -> None:
    other = CLIENT.replace("0af7", "1111")
    rows = [{"prompt": SECRET}, {"prompt": SECRET}]
    client.batch(*rows, headers=[{"traceparent": CLIENT}, {"traceparent": other}])
    spans = kept.until("image_file", 2)
    requests = named(spans, "request")
    assert {span.trace for span in requests} == {CLIENT.split("-")[1], other.split("-")[1]}
    assert len(named(spans, "denoising")) == 2


def test_a_refused_request_has_its_error_and_no_phases(client: Client, kept: Kept) -> None:
    assert client.one({"prompt": SECRET, "colour": SECRET})[0] == 422
    request = only(kept.until("request"), "request")
    assert (request.error, request.parent) == ("invalid_field", None)
    assert [span.name for span in kept.spans] == ["request"]
    assert SECRET not in str(kept.spans)


def test_one_that_is_not_drawn_in_time_has_no_file(client: Client, kept: Kept) -> None:
    asked = {"prompt": SECRET, "num_inference_steps": 100, "timeout_s": 0.05}
    status, _, problem = client.one(asked)
    # A machine that has measured its pace refuses at once what will be late.
    assert (status, problem["code"]) in ((504, "deadline_exceeded"), (503, "overloaded"))
    assert only(kept.until("request"), "request").error == problem["code"]
    assert named(kept.spans, "image_file") == []
