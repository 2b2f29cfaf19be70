"""Ways to serve a pipeline for less, each built, run beside the original, and compared.

    python scripts/optimize.py --model models/emoji --quality top1:0.95 --price cpu-2

Every variant runs in a process of its own, in turns with the original, so that one that fails or
slows down is a row of the table. What was measured is kept and not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from archiving.fitting import fitted
from archiving.naming import ArchiveFormat, require_name
from archiving.pipeline import read_pipeline
from archiving.settings import default_config
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import parse_model_config
from diffusion_costs.prices import Prices, Purchase
from optimizing.choosing import DEFAULT_QUALITY, Floor, OutOfReachError, choose, floors
from optimizing.configs import read_document
from optimizing.measuring import Bench, Original, conditions, measure
from optimizing.plan import Plan, is_emoji, prompts_of
from optimizing.report import Found, show, write
from optimizing.rows import Rows
from optimizing.variants import ORIGINAL, Variant, catalogue
from serving.cli import ROOT, console, program, run
from serving.errors import Trouble

app = program("Variants of a pipeline: what each costs, and how far its pictures move.")

ROUNDS = 5
IMAGES = 32
_LIMIT_S = 1800.0


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Pipeline folder.")],
    name: Annotated[str, typer.Option(help="The model's name: of its config, its archives.")],
    config: Annotated[Path | None, typer.Option(help="Model config; else as make archive.")] = None,
    quality: Annotated[
        str, typer.Option(help="Floor: SSIM, or ssim:, psnr:, flip:, top1: and a number.")
    ] = DEFAULT_QUALITY,
    speedup: Annotated[
        float | None, typer.Option(min=0, help="How many times the original's images a second.")
    ] = None,
    price: Annotated[
        str, typer.Option(help="Of an hour: a number, or a machine of config/prices.yaml.")
    ] = "",
    variants: Annotated[str, typer.Option(help="Only these, with commas between.")] = "",
    tiny_vae: Annotated[Path | None, typer.Option(help="Folder of an AutoencoderTiny.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt a line.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures that are compared.")] = IMAGES,
    rounds: Annotated[int, typer.Option(min=1, help="Turns on the clock.")] = ROUNDS,
    limit: Annotated[
        float, typer.Option(min=1, help="Seconds that loading or a batch may take.")
    ] = _LIMIT_S,
    out: Annotated[Path | None, typer.Option(help="Folder; else run/optimize/NAME.")] = None,
    archive: Annotated[bool, typer.Option("--archive", help="Build the chosen one's.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace that archive.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure what was measured.")] = False,
    prices: Annotated[Path, typer.Option(help="The price table.")] = ROOT / "config/prices.yaml",
    model_store: Annotated[Path, typer.Option(help="Where the archive goes.")] = (
        ROOT / "model_store"
    ),
) -> None:
    """Measures variants, shows them, and names the cheapest above the floors."""
    require_name(name, "name")
    asked, names = prompts_of(str(model), prompts, images)
    wanted = floors(quality, names=names)
    hourly = _price(price, prices)
    bench = _bench(model, name, config, out, Plan(asked, names, 0, rounds), limit)
    known = catalogue(
        fitted(parse_model_config(bench.document), read_pipeline(model)),
        tiny_vae=tiny_vae,
        emoji=is_emoji(str(model)),
        unet=(model / "unet").is_dir(),
    )
    rows = _measure(bench, _chosen(known, variants), again=again)
    found = _found(bench, rows, known, wanted, speedup, hourly)
    show(found, console)
    write(found, bench.work)
    console.print(f"\n{bench.work}: optimize.md, optimize.png and rows.json are written.")
    if found.chosen is None:
        raise Trouble(found.words)
    if archive:
        _archive(bench, known[found.chosen], model_store, force=force)


@dataclass(frozen=True)
class _Hour:
    """What an hour costs; None: nobody named a price."""

    amount: float | None
    currency: str


def _price(text: str, table: Path) -> _Hour:
    if not text:
        return _Hour(None, "")
    known = Prices.read(table)
    try:
        amount = float(text)
    except ValueError:
        machine, _, purchase = text.partition(":")
        if purchase and purchase not in list(Purchase):
            raise ConfigError(
                f"PRICE: {purchase!r} is none of {', '.join(Purchase)}", field="PRICE"
            ) from None
        way = Purchase(purchase) if purchase else Purchase.ON_DEMAND
        hourly = known.hourly(machine, way, datetime.now(UTC))
        return _Hour(float(hourly.amount), hourly.currency)
    if not 0 < amount < float("inf"):
        raise ConfigError("PRICE: an hour's price lies above 0", field="PRICE")
    return _Hour(amount, known.currency)


def _bench(
    model: Path, name: str, config: Path | None, out: Path | None, plan: Plan, limit: float
) -> Bench:
    if not (model / "model_index.json").is_file():
        raise ConfigError(f"{model}: is not a diffusers pipeline folder")
    path = config or default_config(ROOT / "config" / "models", name)
    document = read_document(path)
    batch = parse_model_config(document).batch_size
    work = out or ROOT / "run" / "optimize" / name
    work.mkdir(parents=True, exist_ok=True)
    return Bench(
        model=model,
        name=name,
        document=document,
        work=work,
        server_config=ROOT / "config" / "config.properties",
        plan=Plan(plan.prompts, plan.names, batch, plan.rounds),
        limit_s=limit,
    )


def _chosen(known: Mapping[str, Variant], text: str) -> list[Variant]:
    if not text:
        return list(known.values())
    names = [name.strip() for name in text.split(",") if name.strip()]
    for one in names:
        if one not in known:
            raise ConfigError(f"VARIANTS: {one!r} is none of {', '.join(known)}", field="VARIANTS")
    return [known[one] for one in dict.fromkeys((ORIGINAL, *names))]


def _measure(bench: Bench, wanted: list[Variant], *, again: bool) -> Rows:
    """The kept rows, with those of `wanted` that are not kept measured now."""
    path = bench.work / "rows.json"
    rows = Rows.read(path, conditions(bench))
    lacking = [one for one in wanted if again or not _kept(rows, one)]
    if not lacking:
        return rows
    with _bar() as bar:
        task = bar.add_task("", total=len(lacking))
        original = Original(bench, wanted[0], _teller(bar, task, ORIGINAL))
        try:
            for variant in lacking:
                tell = _teller(bar, task, variant.name)
                rows.add(measure(bench, variant, original, tell))
                rows.write(path)
                bar.advance(task)
        finally:
            original.close()
    return rows


def _kept(rows: Rows, variant: Variant) -> bool:
    """Whether the variant was measured as it is now; what failed is tried again."""
    row = rows.found.get(variant.name)
    return row is not None and row.recipe == variant.recipe and row.error is None


def _bar() -> Progress:
    err = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
        transient=True,
    )


def _teller(bar: Progress, task: Any, name: str) -> Callable[[str], None]:
    return lambda words: bar.update(task, description=f"{name}: {words}")


def _found(
    bench: Bench,
    rows: Rows,
    known: Mapping[str, Variant],
    quality: tuple[Floor, ...],
    speedup: float | None,
    hour: _Hour,
) -> Found:
    shown = [rows.found[name] for name in known if name in rows.found]
    asked = ", ".join(map(str, quality))
    try:
        chosen = choose(shown, quality, speedup)
        name: str | None = chosen.name
        words = f"Cheapest with {asked}: {chosen.name}, {chosen.factor:.2f} times the images/s."
        if chosen.name == ORIGINAL:
            words = f"No variant is cheaper with {asked}: the original stays."
    except OutOfReachError as error:
        name, words = None, error.message[0].upper() + error.message[1:]
    return Found(
        model=str(bench.model),
        rows=shown,
        quality=quality,
        conditions=rows.conditions,
        images=len(bench.plan.prompts),
        price=hour.amount,
        currency=hour.currency,
        chosen=name,
        words=words,
    )


def _archive(bench: Bench, variant: Variant, store: Path, *, force: bool) -> None:
    # What is smaller when compressed is compressed.
    packed = "mask" in variant.folder
    form = ArchiveFormat.DEFAULT if packed else ArchiveFormat.ZIP_STORE
    built = bench.archive(variant, store, form, console.print, force=force)
    console.print(f"{built} is built; serve it: make serve NAME={built.stem}", style="green")


if __name__ == "__main__":
    run(app)
