"""An archive with a recipe draws, on a real TorchServe, what was measured."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from archiving.naming import ArchiveFormat
from diffusion_core.identity import ArchiveRecord
from optimizing.measuring import Bench
from optimizing.plan import Plan
from optimizing.process import Drawer
from optimizing.quality import farthest
from optimizing.variants import Variant
from served import ROOT, TINY_CONFIG, ask
from serving.fleet import Fleet
from serving.server import Server

pytestmark = [pytest.mark.system, pytest.mark.full]

VARIANTS = [
    Variant("int8", {"optimization": {"quantization": "int8_weights"}}),
    Variant("mask", {"optimization": {"pruned_weights": 0.5}}, {"mask": 0.5}),
    Variant("guided", {"optimization": {"guidance_interval": [0.0, 0.5]}}),
    Variant("openvino", {"optimization": {"runtime": "openvino"}}),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=[one.name for one in VARIANTS])
def test_what_was_measured_is_served(
    variant: Variant, server: Server, pipeline: Path, store: Path, tmp_path: Path
) -> None:
    request = {"prompt": "a cat", "seed": 5, "num_inference_steps": 4}
    bench = Bench(
        model=pipeline,
        name="optimized",
        document=TINY_CONFIG,
        work=tmp_path,
        server_config=ROOT / "config" / "config.properties",
        plan=Plan((), names=False, batch=1, rounds=1),
        limit_s=280,
    )
    folder = bench.unpacked(variant, lambda _: None)
    with Drawer(folder, bench.limit_s) as drawer:
        measured = drawer.draw([request], keep=True).pictures[0]
    form = ArchiveFormat.ZIP_STORE
    built = bench.archive(variant, store, form, lambda _: None, force=True)
    record = ArchiveRecord.read(folder)
    assert record.recipe.items() >= variant.handler["optimization"].items()

    fleet = Fleet(server)
    fleet.register(built.name, built.stem)
    answer = ask(f"{server.require().inference}/predictions/{built.stem}", **request)
    fleet.unregister(built.stem)
    served = Image.open(io.BytesIO(answer.content)).convert("RGB")
    assert farthest(served, measured) <= 1
