"""Requests in a continuous batch: what goes out in which turn, and what is left when clients go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from diffusion_core.errors import DeadlineError
from diffusion_engine.answers import Answer, Wanted
from diffusion_engine.events import EventStream, Wire
from diffusion_engine.flights import Flights
from diffusion_engine.pending import Pending, answered, refuse


@pytest.fixture
def cancelled() -> list[Pending]:
    return []


@pytest.fixture
def flights(cancelled: list[Pending]) -> Iterator[Flights]:
    opened = Flights(cancelled.append)
    yield opened
    opened.close()


def streaming(flights: Flights, wire: Wire = "ndjson") -> Pending:
    return Pending(None, {}, Wanted(file=False, stream=wire), wake=flights.wake)


def test_a_whole_answer_goes_out_once(flights: Flights) -> None:
    flights.add("a", answered(Answer(200, b"x", "text/plain")))
    part = flights.take("a")
    assert part is not None
    assert (part.answer.body, part.last) == (b"x", None)
    assert "a" not in flights


def test_what_is_not_ready_is_not_answered(flights: Flights) -> None:
    flights.add("a", streaming(flights))
    assert flights.take("a") is None
    assert "a" in flights


def test_steps_are_told_with_the_turn_and_previews_at_once() -> None:
    woken: list[str] = []
    stream = EventStream("ndjson", lambda: woken.append("woken"))
    for step in range(3):
        stream.put("progress", {"step": step})
    assert not woken
    assert stream.take()[0].count(b"\n") == 3
    for number, kind in enumerate(("preview", "checkpoint", "completed"), 1):
        stream.put(kind, {})
        assert len(woken) == number


def test_a_stream_goes_out_in_parts(flights: Flights) -> None:
    pending = streaming(flights)
    flights.add("a", pending)
    assert pending.stream is not None
    pending.stream.put("progress", {"step": 1})
    first = flights.take("a")
    pending.stream.put("completed", {})
    last = flights.take("a")
    assert first is not None
    assert last is not None
    assert (first.last, last.last) == (False, True)
    assert len(flights) == 0


def test_a_stream_of_one_turn_is_a_whole_answer(flights: Flights) -> None:
    pending = streaming(flights, "sse")
    flights.add("a", pending)
    assert pending.stream is not None
    pending.stream.put("progress", {"step": 1})
    pending.stream.put("completed", {})
    part = flights.take("a")
    assert part is not None
    assert part.last is None
    assert part.answer.content_type == "text/event-stream"


def test_an_error_before_the_first_event_has_its_status(flights: Flights) -> None:
    pending = streaming(flights)
    flights.add("a", pending)
    pending.fail(DeadlineError("too late"))
    part = flights.take("a")
    assert part is not None
    assert (part.answer.status, part.last) == (504, None)


def test_nothing_comes_after_the_last_event(flights: Flights) -> None:
    pending = streaming(flights)
    assert pending.stream is not None
    pending.stream.put("completed", {})
    pending.stream.put("progress", {})
    assert pending.stream.take()[0].count(b"\n") == 1


def test_ids_that_vanish_are_cancelled(flights: Flights, cancelled: list[Pending]) -> None:
    kept, gone = streaming(flights), streaming(flights)
    flights.add("kept", kept)
    flights.add("gone", gone)
    flights.keep_only(["kept"])
    assert cancelled == [gone]


def test_silence_frees_the_last_ones(
    flights: Flights, cancelled: list[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_engine.flights._SILENCE_S", 0.0)
    flights.add("a", streaming(flights))
    assert not _happens(lambda: cancelled, within=0.5), "a turn is under way"
    flights.turn_over()
    assert _happens(lambda: cancelled, within=5.0)
    assert len(flights) == 0


def test_a_turn_that_begins_ends_the_silence(
    cancelled: list[Pending], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_engine.flights._SILENCE_S", 0.0)
    flights = Flights(cancelled.append)
    flights.add("a", streaming(flights))
    with flights._lock:
        # The watch finds silence, and waits for the lock that the turn holds already.
        flights.turn_over()
        assert not _happens(lambda: cancelled, within=0.3)
        flights._turn_ended = None
    assert not _happens(lambda: cancelled, within=0.3)
    flights.close()


def _happens(condition: Callable[[], object], within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_an_event_ends_a_wait(flights: Flights) -> None:
    pending = streaming(flights)
    flights.add("a", pending)
    assert pending.stream is not None
    pending.stream.put("preview", {"step": 1})
    started = time.monotonic()
    flights.wait(30)
    assert time.monotonic() - started < 10


def test_refusals_need_no_stream(flights: Flights) -> None:
    flights.add("a", refuse(DeadlineError("no")))
    part = flights.take("a")
    assert part is not None
    assert part.answer.status == 504
