"""Measures variants, each beside the original in turns, so that a slow moment falls on both."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from archiving.build import build
from archiving.naming import ArchiveFormat
from archiving.order import Order
from archiving.watcher import Watcher
from diffusion_core.errors import ServingError
from diffusion_core.identity import PIPELINE_FOLDER, ArchiveRecord, digest
from diffusion_core.model_config import parse_model_config
from optimizing.folders import Tell, prepare
from optimizing.plan import Plan
from optimizing.process import Drawer, Drawn
from optimizing.quality import compare, farthest
from optimizing.rows import Row
from optimizing.skipping import skipped_blocks
from optimizing.variants import ORIGINAL, Variant, merged

CALIBRATION = 8
"""Prompts of which it is measured what blocks add."""


@dataclass(frozen=True)
class Bench:
    """Where variants are built, and what they are made of.

    Attributes:
        model: the original's pipeline folder.
        document: its model config.
        work: a folder for pipelines that were changed, model configs and archives.
        limit_s: seconds that one answer of a variant may take.
    """

    model: Path
    name: str
    document: Mapping[str, Any]
    work: Path
    server_config: Path
    plan: Plan
    limit_s: float

    def archive(
        self, variant: Variant, store: Path, form: ArchiveFormat, tell: Tell, *, force: bool
    ) -> Path:
        """Builds the variant's archive in `store`; raises `ConfigError` where it cannot be."""
        folder = prepare(self.model, variant.folder, self.work / "pipelines" / variant.name, tell)
        config = self.work / "configs" / f"{variant.name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        document = merged(self.document, {"handler": self._handler(variant, tell)})
        parse_model_config(document, variant.name)
        config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        tell("building its archive")
        order = Order(
            model=str(folder),
            name=f"{self.name}-{variant.name}",
            version="1.0",
            format=form,
            store=store,
            config=config,
            mode=None,
            server_config=self.server_config,
            variant=None,
            pipeline_config=None,
            allow_pickle=False,
            force=force,
            check=False,
        )
        return build(order, Watcher()).target

    def _handler(self, variant: Variant, tell: Tell) -> Mapping[str, Any]:
        if variant.skips is None:
            return variant.handler
        tell("measuring what its blocks add")
        own = parse_model_config(dict(self.document)).handler.model_dump_json()
        prompts = self.plan.prompts[:CALIBRATION]
        found = skipped_blocks(self.model, own, prompts, variant.skips)
        return merged(variant.handler, {"optimization": {"skipped_blocks": found}})

    def unpacked(self, variant: Variant, tell: Tell) -> Path:
        """The variant's archive as a folder, of links."""
        store = self.work / "archives"
        store.mkdir(parents=True, exist_ok=True)
        return self.archive(variant, store, ArchiveFormat.NO_ARCHIVE, tell, force=True)


def conditions(bench: Bench) -> dict[str, Any]:
    """What must be the same for two measurements to stand in one table.

    The original with its config, the plan, and the machine with its libraries.
    """
    import torch

    from diffusion_engine.loading import choose_device, device_name, library_versions

    original = Variant(ORIGINAL)
    record = ArchiveRecord.read(bench.unpacked(original, lambda _: None))
    settings = parse_model_config(dict(bench.document)).handler
    return {
        **bench.plan.conditions,
        "identity": record.identity,
        "config": digest(dict(bench.document)),
        "device": device_name(choose_device(settings.device)),
        "threads": settings.threads or torch.get_num_threads(),
        "libraries": library_versions(settings),
    }


class Original:
    """The original, loaded for the length of a run, and its pictures."""

    def __init__(self, bench: Bench, variant: Variant, tell: Tell) -> None:
        self.folder = bench.unpacked(variant, tell)
        tell("loading")
        self.drawer = Drawer(self.folder, bench.limit_s)
        tell("drawing")
        try:
            self.pictures = _pictures(self.drawer, bench.plan)
        except BaseException:
            self.drawer.close()
            raise

    def close(self) -> None:
        self.drawer.close()


def measure(bench: Bench, variant: Variant, original: Original, tell: Tell) -> Row:
    """The variant's row; a variant that fails is a row that says so.

    Raises `VariantError` where it is the original that ended.
    """
    row = Row(name=variant.name, recipe=variant.recipe, note=variant.note)
    try:
        folder = bench.unpacked(variant, tell)
        disk, packed = _sizes(folder)
        row = replace(row, disk_bytes=disk, packed_bytes=packed, dtype=_dtype(bench, variant))
        tell("loading")
        with Drawer(folder, bench.limit_s) as drawer:
            row = replace(row, identity=drawer.facts["identity"], load_seconds=drawer.load_seconds)
            return _run(row, bench.plan, drawer, original, tell)
    except (ServingError, OSError) as error:
        if not original.drawer.alive:
            raise
        return replace(row, error=str(error))


def _run(row: Row, plan: Plan, drawer: Drawer, original: Original, tell: Tell) -> Row:
    requests = plan.requests
    tell("drawing")
    first = drawer.draw(requests[:1], keep=True)
    pictures = _pictures(drawer, plan)
    alone = drawer.draw(requests[:1], keep=True).pictures[0]
    moved = compare(original.pictures, pictures, plan.prompts if plan.names else None)
    steps: list[float] = []
    rates: list[float] = []
    speedups: list[float] = []
    last: Drawn = first
    for number in range(plan.rounds):
        tell(f"round {number + 1} of {plan.rounds}")
        turn = [drawer, original.drawer] if number % 2 else [original.drawer, drawer]
        rate = {}
        for one in turn:
            solo = one.draw(requests[:1])
            together = one.draw(requests[: plan.batch])
            rate[one] = plan.batch / together.seconds
            if one is drawer:
                steps += solo.step_seconds
                last = together
        rates.append(rate[drawer])
        speedups.append(rate[drawer] / rate[original.drawer])
    return replace(
        row,
        first_seconds=first.seconds,
        peak_bytes=last.peak_bytes,
        step_seconds=tuple(steps),
        rate=tuple(rates),
        speedup=tuple(speedups),
        company=farthest(alone, pictures[0]),
        moved=moved,
    )


def _pictures(drawer: Drawer, plan: Plan) -> list[Image.Image]:
    """A picture for each request, drawn in batches."""
    requests = plan.requests
    drawn: list[Image.Image] = []
    for start in range(0, len(requests), plan.batch):
        drawn += drawer.draw(requests[start : start + plan.batch], keep=True).pictures
    return drawn


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the pipeline's files, as they are and compressed."""
    files = [path for path in (folder / PIPELINE_FOLDER).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files), sum(map(_packed, files))


def _packed(path: Path) -> int:
    """Bytes of a file as an archive of the default or tgz format stores it: deflated."""
    packer, size = zlib.compressobj(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            size += len(packer.compress(block))
    return size + len(packer.flush())


def _dtype(bench: Bench, variant: Variant) -> str:
    document = merged(bench.document, {"handler": variant.handler})
    return parse_model_config(document, variant.name).handler.dtype
