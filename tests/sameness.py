"""How far pictures were from diffusers' own, collected over a test session: a plugin of pytest's.

Where several processes run the tests, each tells what it compared to the one that reports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import torch
    from rig import Asked


class Row(NamedTuple):
    family: str
    task: str
    scheduler: str
    mode: str
    largest: float
    identical: int
    pixels: int


@dataclass
class Sameness:
    """Rows of what was compared; `table` and `document` sum them up."""

    rows: list[Row] = field(default_factory=list)

    def note(
        self, family: str, asked: Asked, mode: str, images: torch.Tensor, expected: torch.Tensor
    ) -> None:
        # The process that only reports need not load torch.
        from rig import apart, to_bytes

        same = (to_bytes(images) == to_bytes(expected)).all(dim=1)
        scheduler = asked.scheduler or "its own"
        largest = apart(images, expected)
        row = Row(family, asked.task, scheduler, mode, largest, int(same.sum()), same.numel())
        self.rows.append(row)

    def groups(self) -> dict[tuple[str, str, str], list[Row]]:
        groups: dict[tuple[str, str, str], list[Row]] = {}
        for row in sorted(self.rows):
            groups.setdefault((row.family, row.task, row.mode), []).append(row)
        return groups

    def table(self) -> Iterator[str]:
        yield f"{'':6}{'task':16}{'mode':18}{'asked':>7}{'largest x255':>14}{'same pixels':>13}"
        for (family, task, mode), rows in self.groups().items():
            yield (
                f"{family:6}{task:16}{mode:18}{len(rows):7}"
                f"{255 * max(row.largest for row in rows):14.6f}{_share(rows):13.4%}"
            )

    def document(self) -> list[dict[str, Any]]:
        return [
            {
                "family": family,
                "task": task,
                "mode": mode,
                "requests": len(rows),
                "schedulers": sorted({row.scheduler for row in rows}),
                "largest_difference_of_255": round(255 * max(row.largest for row in rows), 6),
                "identical_pixels": _share(rows),
            }
            for (family, task, mode), rows in self.groups().items()
        ]


def _share(rows: list[Row]) -> float:
    return sum(row.identical for row in rows) / sum(row.pixels for row in rows)


_SAMENESS = pytest.StashKey[Sameness]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SAMENESS] = Sameness()


@pytest.fixture
def sameness(request: pytest.FixtureRequest) -> Sameness:
    return request.config.stash[_SAMENESS]


def pytest_sessionfinish(session: pytest.Session) -> None:
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["sameness"] = [tuple(row) for row in session.config.stash[_SAMENESS].rows]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("sameness", [])
    node.config.stash[_SAMENESS].rows += [Row(*row) for row in told]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    kept = config.stash[_SAMENESS]
    if not kept.rows:
        return
    terminalreporter.section("the same image: distance from diffusers' own pipeline")
    for line in kept.table():
        terminalreporter.write_line(line)
    report = os.environ.get("SAME_IMAGE_REPORT")
    if report:
        Path(report).write_text(json.dumps(kept.document(), indent=1) + "\n")
