"""Trace files: what is read from them, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from diffusion_costs.traces import Trace, TracedRequest, read_trace, write_trace


def _file(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    requests = [
        TracedRequest(0.5, "a", "emoji", 20, 64, 64),
        TracedRequest(0.5, prompt_id="b, quoted"),
        TracedRequest(4.5),
    ]
    write_trace(requests, tmp_path / "trace.csv")
    trace = read_trace(tmp_path / "trace.csv")
    assert trace.requests == requests
    assert (trace.span_s, trace.rate) == (4.0, 0.5)


def test_only_seconds_are_needed_and_columns_come_in_any_order(tmp_path: Path) -> None:
    assert len(read_trace(_file(tmp_path, "seconds\n0\n1.5\n"))) == 2
    trace = read_trace(_file(tmp_path, "steps,seconds\n8,0\n,2\n"))
    assert [one.steps for one in trace.requests] == [8, None]
    assert trace.step_counts(20) == {8: 1, 20: 1}


def test_a_single_request_has_no_rate() -> None:
    trace = Trace([TracedRequest(86_399.0)])
    assert (trace.span_s, trace.rate) == (0.0, None)


def test_requests_of_a_model() -> None:
    trace = Trace([TracedRequest(0, model="a"), TracedRequest(1, model="b"), TracedRequest(2)])
    assert [one.seconds for one in trace.of_model("a").requests] == [0, 2]
    with pytest.raises(ValueError, match="asks nothing of 'c', only of a"):
        Trace([TracedRequest(0, model="a")]).of_model("c")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the trace is empty: it has no header"),
        ("seconds\n", "the trace is empty: it holds no request"),
        ("steps\n3\n", "line 1: seconds is missing"),
        ("seconds,prompt\n0,cat\n", "line 1: 'prompt' is no column of a trace"),
        ("seconds,seconds\n0,0\n", "line 1: seconds stands there 2 times"),
        ("seconds\n0\nsoon\n", "line 3: seconds: "),
        ("seconds\n-1\n", "line 2: seconds: "),
        ("seconds\nnan\n", "line 2: seconds: "),
        ("seconds,steps\n0,0\n", "line 2: steps: "),
        ("seconds,steps\n0,20.5\n", "line 2: steps: "),
        ("seconds,steps\n,20\n", "line 2: seconds: "),
        ("seconds\n5\n4\n", "line 3: seconds: must not fall, and the line before has 5"),
        ("seconds\n1732233600\n", "line 2: seconds: must be at most 31622400, 366 days"),
        ("seconds\n0\n31622401\n", "line 3: seconds: must be at most 31622400, 366 days"),
        ("seconds\n5,6\n", "line 2: has more fields than the header"),
        ("seconds,steps\n5\n", "line 2: steps: is missing"),
        ('seconds\n"5\n', "cannot be read as CSV"),
    ],
)
def test_a_bad_trace_is_told_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
