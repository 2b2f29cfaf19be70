"""What the spot drill counts: steps that were drawn twice, and pods that KEDA would ask for."""

from __future__ import annotations

from pathlib import Path

from drilling.scaling import PREFIX, Scaler, triggers
from drilling.steps import Loss, Steps


def lines(job: str, begin: float, every: int, *told: str) -> list[str]:
    """A log of one run: `at 3` and `kept 5`, a tenth of a second apart."""
    said = [f"every {every}", *told]
    return [f"{begin + 0.1 * place:.3f} {job} {what}" for place, what in enumerate(said)]


def at(first: int, last: int) -> list[str]:
    return [f"at {step}" for step in range(first, last + 1)]


def test_an_undisturbed_job_is_drawn_once() -> None:
    found = Steps.of(lines("a", 0, 5, *at(1, 20)))
    assert (found.drawn, found.losses()) == (20, [])


def test_what_came_after_the_last_checkpoint_is_drawn_again() -> None:
    first = lines("a", 0, 5, *at(1, 6), "kept 5", *at(7, 8))
    second = lines("a", 100, 5, *at(6, 20))
    found = Steps.of([*second, *first])
    assert found.drawn == 8 + 15
    assert found.losses() == [Loss(lost=3, again=0, every=5)]


def test_a_checkpoint_that_was_not_gone_on_from_is_found_out() -> None:
    first = lines("a", 0, 5, *at(1, 12), "kept 10")
    found = Steps.of([*first, *lines("a", 100, 5, *at(1, 20))])
    assert found.losses() == [Loss(lost=2, again=10, every=5)]


def test_a_checkpoint_taken_and_not_yet_kept_costs_more_than_an_interval() -> None:
    first = lines("a", 0, 5, *at(1, 5), "kept 5", *at(6, 11))
    (loss,) = Steps.of([*first, *lines("a", 100, 5, *at(6, 20))]).losses()
    assert loss.lost > loss.every
    assert loss.again == 0


def test_a_run_that_never_drew_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "steps.log").write_text(
        "\n".join([*lines("a", 0, 5, *at(1, 3)), *lines("a", 50, 5), "60.0 a at"])
        + "\n"
        + "\n".join(lines("a", 100, 5, *at(1, 20)))
    )
    found = Steps.read([tmp_path / "steps.log", tmp_path / "never-written.log"])
    assert found.losses() == [Loss(lost=3, again=0, every=5)]


def test_keda_reads_each_lane_and_the_leases() -> None:
    assert triggers("emoji", "a10g") == [
        *(f"{PREFIX}queue:emoji:{lane}" for lane in range(4)),
        f"{PREFIX}leases:a10g",
    ]


def test_the_largest_trigger_counts_and_going_down_takes_a_while() -> None:
    now = 0.0
    scaler = Scaler(least=1, most=3, jobs_per_pod=5, down_window_s=60, clock=lambda: now)
    keys = triggers("emoji", "a10g")
    empty = dict.fromkeys(keys, 0)
    assert scaler.wanted(empty) == 1
    # Work under way keeps pods though nobody waits.
    assert scaler.wanted({**empty, keys[-1]: 6}) == 2
    assert scaler.wanted({**empty, keys[2]: 500}) == 3
    now = 59.0
    assert scaler.wanted(empty) == 3
    now = 61.0
    assert scaler.wanted(empty) == 1
