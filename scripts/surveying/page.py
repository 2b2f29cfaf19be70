"""The table of docs/pipelines.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from surveying.trial import Trial

START = "<!-- written by scripts/list_pipelines.py -->"
END = "<!-- end of what scripts/list_pipelines.py writes -->"

_SHORT = {"text-to-image": "text", "image-to-image": "image", "inpainting": "inpaint"}
_BOUND = 1 / 255


def written_into(page: str, versions: str, trials: Sequence[Trial]) -> str:
    """The page with its table replaced; `ValueError` where the page has no place for one."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page has no lines {START} and {END}")
    return "\n".join([before + START, "", *_lines(versions, trials), "", END + after])


def _lines(versions: str, trials: Sequence[Trial]) -> Iterator[str]:
    drawn = [trial for trial in trials if trial.apart is not None]
    shared = sum(trial.shared for trial in drawn)
    same = sum(trial.apart <= _BOUND for trial in drawn if trial.apart is not None)
    yield (
        f"{versions}: {len(trials)} classes, of which {sum(trial.built for trial in trials)} were "
        f"built, {len(drawn)} drew, {same} drew diffusers' own picture, and {shared} shared calls."
    )
    yield ""
    yield "| pipeline | forms | draws | shares calls | furthest pixel, of 255 |"
    yield "|---|---|---|---|---|"
    for trial in sorted(trials, key=_order):
        yield _row(trial)


def _order(trial: Trial) -> tuple[bool, bool, bool, str]:
    return (not trial.built, trial.apart is None, not trial.shared, trial.pipeline)


def _row(trial: Trial) -> str:
    forms = ", ".join(_SHORT[task] for task in trial.tasks)
    if trial.apart is None:
        draws = "no" if trial.built else "not built"
        return f"| {trial.pipeline} | {forms} | {draws}: {trial.note} | | |"
    sharing = "yes" if trial.shared else "no"
    return f"| {trial.pipeline} | {forms} | yes | {sharing} | {255 * trial.apart:.4f} |"
