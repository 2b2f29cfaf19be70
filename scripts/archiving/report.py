"""Tables for people: what was built, and what an archive holds."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table

from archiving.build import Built
from archiving.contents import Contents
from diffusion_core.model_config import ModelConfig


def built_report(built: Built) -> Group:
    """The components and the facts of an archive that was just built."""
    return Group(_components(built.contents), _facts(built))


def print_report(console: Console, built: Built) -> None:
    """Prints the report, warnings and, on a line of its own that tools can read, the hash."""
    console.print(built_report(built))
    for warning in built.warnings:
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
    console.print(f"sha256 {built.sha256}", highlight=False, soft_wrap=True)


def _components(contents: Contents) -> Table:
    table = Table(title=f"{contents.name} {contents.version}", title_justify="left")
    for heading in ("component", "class", "parameters", "dtype", "size"):
        table.add_column(heading, justify="right" if heading in ("parameters", "size") else "left")
    for part in contents.pipeline.components:
        weights = part.weights
        table.add_row(
            part.name,
            part.class_name,
            f"{weights.parameters:,}" if weights.bytes else "",
            weights.dtypes if weights.bytes else "",
            size_text(part.bytes),
        )
    return table


def _facts(built: Built) -> Table:
    contents = built.contents
    table = fact_table()
    table.add_row("pipeline", contents.pipeline.kind.name)
    table.add_row("parameters", f"{contents.pipeline.weights.parameters:,}")
    table.add_row("defaults", defaults_text(contents.config, contents.pipeline.default_size))
    table.add_row("batching", batching_text(contents.config))
    table.add_row("licence", contents.pipeline.licence or "not stated in the model's README")
    table.add_row("identity", built.record.identity)
    if built.trial:
        trial = built.trial
        table.add_row(
            "check", f"{trial.content_type}, {trial.bytes} bytes, after {trial.seconds:.1f} s"
        )
    table.add_row("archive", f"{built.target} ({size_text(built.size)})")
    return table


def fact_table() -> Table:
    """A table of two columns without frames."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def defaults_text(config: ModelConfig, size: tuple[int, int] | None) -> str:
    """What a request that names only a prompt gets."""
    defaults = config.handler.defaults
    width = defaults.width or (size[0] if size else "?")
    height = defaults.height or (size[1] if size else "?")
    return (
        f"{width}×{height}, {defaults.num_inference_steps} steps, guidance "
        f"{defaults.guidance_scale:g}, {defaults.output_format}, {config.handler.dtype}"
    )


def batching_text(config: ModelConfig) -> str:
    """The mode and bounds of batching."""
    mode = "continuous" if config.continuous_batching else "classic"
    return f"{mode}, up to {config.batch_size} requests, {config.max_batch_delay} ms of waiting"


def size_text(count: int) -> str:
    """Bytes in a unit that reads well."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
