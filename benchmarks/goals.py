"""The goals, and what a run came to beside each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.feature_caches import WITHOUT
from benchmarks.figures import summary
from benchmarks.latency import FIRST_COME, OURS
from benchmarks.previews import shares
from benchmarks.systems import CLASSIC, CONTINUOUS

Results = dict[str, dict[str, Any]]
"""The `results` of every part that was run, by part."""


@dataclass(frozen=True)
class Row:
    """A line of the table: `met` is None where a figure is only reported."""

    figure: str
    goal: str
    measured: str
    met: bool | None

    def markdown(self) -> str:
        """The line, Markdown."""
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        return f"| {self.figure} | {self.goal} | {self.measured} | {verdict} |"


def rows(results: Results) -> Iterator[Row]:
    """Every goal that the parts at hand tell about, in the order of the design."""
    for part, lines in _LINES.items():
        if part in results:
            yield from lines(results[part])


def spread(figure: dict[str, Any], digits: int = 3) -> str:
    """Median and range."""
    shown = (f"{figure[key]:.{digits}f}" for key in ("median", "min", "max"))
    middle, low, high = shown
    return f"{middle} ({low}–{high})"


def _served(found: dict[str, Any]) -> Iterator[Row]:
    for name in (CONTINUOUS, CLASSIC):
        ratio = found["of_the_bare_pipeline"][name]
        bound = ratio["lower_bound"]
        told = "too few pairs for a bound" if bound is None else f"above {bound:.3f} at 95 %"
        yield Row(
            f"images/s through TorchServe ÷ bare pipeline, {name}",
            "≥ 0.98, above 0.95 at 95 %",
            f"{spread(ratio)}, {told}, {len(ratio['values'])} pairs",
            bound is not None and ratio["median"] >= 0.98 and bound >= 0.95,
        )


def _request(found: dict[str, Any]) -> Iterator[Row]:
    floor, told = found["paced_floor_ms"]["median"], spread(found["paced_floor_ms"], 2)
    for mode in ("classic", "continuous"):
        cost = found[mode]["request_ms"]
        yield Row(
            f"CPU of a request outside models, schedulers, file: {mode}",
            f"≤ {floor + 1:.2f} ms (empty handler at this pace {told}, + 1)",
            f"{spread(cost, 2)} ms",
            cost["median"] <= floor + 1,
        )
        step = found[mode]["step_ms"]
        yield Row(f"the same, of each step more: {mode}", "reported", f"{spread(step)} ms", None)
    script = found["script alone"]
    yield Row(
        "of that, diffusers' own script without a server",
        "reported",
        f"{spread(script['request_ms'], 2)} ms a request, {spread(script['step_ms'])} ms a step",
        None,
    )


def _metrics(found: dict[str, Any]) -> Iterator[Row]:
    for in_flight, one in found["request"].items():
        yield Row(
            f"CPU of a request's metrics, {in_flight} in flight, "
            f"{one['requests_a_second']['median']:.1f} requests a second",
            "reported",
            f"{spread(one['cost_ms'], 2)} ms, {len(one['cost_ms']['values'])} pairs",
            None,
        )
    yield Row(
        f"CPU of a scrape of TorchServe, {found['scrape_ms']['bytes'] / 1024:.0f} KiB",
        "reported",
        f"{spread(found['scrape_ms'], 1)} ms",
        None,
    )
    yield Row(
        "CPU of a job's metrics in the gateway; of a scrape",
        "reported",
        f"{spread(found['job_ms'])} ms; {spread(found['gateway_scrape_ms'], 1)} ms",
        None,
    )


def _bounds(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        for workload, part in one["of_what_t_b_allows"].items():
            yield Row(
                f"throughput ÷ what t(b) allows: {one['model']}, {workload}",
                "≥ 0.95",
                spread(part),
                part["median"] >= 0.95,
            )
    for one in (one for one in found.values() if "padding" in one):
        padding = one["padding"]
        yield Row(
            f"gain over padding, share of E[max]/E[mean] = {padding['bound']:.2f}: {one['model']}",
            "≥ 0.93",
            f"{spread(padding['share'])}; gain {spread(padding['gain'], 2)}",
            padding["share"]["median"] >= 0.93,
        )
    for one in found.values():
        burst = one["burst"]
        yield Row(
            f"burst of {burst['requests']}: makespan ÷ bare pipeline's best: {one['model']}",
            "≤ 1.05",
            spread(burst["makespan"]),
            burst["makespan"]["median"] <= 1.05,
        )


def _latency(found: dict[str, Any]) -> Iterator[Row]:
    short, everyone = found["p99"]["short"], found["p99"]["all"]
    yield Row(
        f"99th percentile of 4-step requests, {FIRST_COME} ÷ {OURS}",
        "≥ 10",
        f"{found['short_p99_first_come_over_ours']:.1f} "
        f"({short[FIRST_COME]:.2f} s and {short[OURS]:.2f} s)",
        found["short_p99_first_come_over_ours"] >= 10,
    )
    yield Row(
        f"99th percentile of all, {OURS} ÷ {FIRST_COME}",
        "≤ 1.25",
        f"{found['all_p99_ours_over_first_come']:.2f} "
        f"({everyone[OURS]:.2f} s and {everyone[FIRST_COME]:.2f} s)",
        found["all_p99_ours_over_first_come"] <= 1.25,
    )


def _memory(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        ratio = one["ratio"]
        yield Row(
            f"peak memory less latents ÷ bare pipeline, {one['in_flight']} in flight: "
            f"{one['model']}",
            "≤ 1.10",
            f"{spread(ratio)}; {max(one['engine_bytes']) / 1e6:.0f} and "
            f"{max(one['bare_bytes']) / 1e6:.0f} MB",
            ratio["median"] <= 1.10,
        )


def _start(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        parts = ", ".join(
            f"{name.replace('_', ' ')} {figure['median']:.1f}"
            for name, figure in one["seconds"].items()
        )
        yield Row(
            f"start to first picture ÷ (imports ∥ weights, + first call): {one['model']}",
            "≤ 1.1",
            f"{spread(one['ratio'], 2)}; seconds: {parts}",
            one["ratio"]["median"] <= 1.1,
        )


def _checkpoint(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        parts = ", ".join(
            f"{part} {one[f'{part}_ms']['median']:.2f}"
            for part in ("take", "seal", "open", "resume")
        )
        yield Row(
            f"checkpoint after {one['taken_after']} of {one['steps']} steps: {one['model']}",
            "reported",
            f"{one['bytes']} bytes; ms: {parts}; same picture: {one['same_picture']}",
            None,
        )


def _adapters(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        what = f"{one['rows']} rows, rank {one['rank']}: {one['model']}"
        of_none = one["of_none"]
        yield Row(
            f"a denoiser call with another adapter for each request ÷ with none, {what}",
            "reported",
            f"{spread(of_none['each'])}; one for all {spread(of_none['one'])}, two for each "
            f"{spread(of_none['several'])}",
            None,
        )
        yield Row(
            f"another adapter for each request ÷ diffusers' own one for all, {what}",
            "≤ 1.00",
            spread(one["each_of_peft"]),
            one["each_of_peft"]["median"] <= 1,
        )
        yield Row(
            f"adapters that no request names ÷ none loaded, {what}",
            "≤ 1.02",
            spread(of_none["unused"]),
            of_none["unused"]["median"] <= 1.02,
        )


def _feature_cache(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        for name, cache in one["settings"].items():
            if name == WITHOUT:
                continue
            shown = cache["recognised"]
            told = "" if shown is None else f", {shown:.0%} of emoji recognised"
            yield Row(
                f"feature cache {name}: images ÷ CPU, to none: {one['model']}",
                "≥ 1, else it is of no use",
                f"{spread(cache['of_without'], 2)}; {cache['skipped']:.0%} of rows left; PSNR "
                f"{spread(cache['psnr_db'], 1)} dB{told}",
                cache["of_without"]["median"] >= 1,
            )


def _previews(found: dict[str, Any]) -> Iterator[Row]:
    for one in found.values():
        beside = one.get("file_ms", {}).get("median", 0.0)
        taken = (one["held_ms"]["median"] + beside) / one["step_ms"]["median"]
        yield Row(
            f"time of a preview ÷ that of a step, one request: {one['model']}",
            "≤ 0.02",
            f"{taken:.4f}; {one['held_ms']['median']:.2f} ms on the engine's thread, "
            f"{beside:.2f} ms beside, {one['step_ms']['median']:.1f} ms the step; fitted in "
            f"{one['fit_seconds']:.1f} s, once",
            taken <= 0.02,
        )
        yield Row(
            f"a request with a preview of every step ÷ one without: {one['model']}",
            "",
            f"{spread(one['slower'])}, {len(one['slower']['values'])} pairs",
            None,
        )
        if "recognised" in one:
            half = one["recognised"]["after 10 of 20 steps"]
            yield Row(
                f"previews whose nearest emoji is the one asked for: {one['model']}",
                "≥ 90 % at half the steps",
                shares(one["recognised"]),
                half is not None and half >= 0.9,
            )


def _gateway(found: dict[str, Any]) -> Iterator[Row]:
    through = found["throughput"]
    yield Row(
        f"images/s through the gateway ÷ directly, {through['model']}",
        "≥ 0.98",
        f"{spread(through['of_direct'])}, {len(through['of_direct']['values'])} pairs",
        through["of_direct"]["median"] >= 0.98,
    )
    cpu = found["job_cpu"]
    yield Row(
        f"gateway's CPU of a job of {cpu['steps']} steps, progress streamed",
        "≤ 20 ms",
        f"{spread(cpu['ms'], 1)} ms",
        cpu["ms"]["median"] <= 20,
    )
    crowd = found["crowd"]
    yield Row(
        f"submissions with {crowd['waiting']} jobs waiting",
        "reported",
        f"{crowd['submissions_a_second']:.0f} a second, 99th percentile "
        f"{1000 * crowd['submission_p99_s']:.0f} ms, CPU {crowd['submission_cpu_ms']:.1f} ms each",
        None,
    )
    yield Row(
        "memory of a waiting job",
        "reported",
        f"{crowd['bytes_a_waiting_job'] / 1024:.1f} KiB",
        None,
    )
    watchers = crowd["watchers"]
    yield Row(
        f"{watchers['count']} WebSocket watchers of one job",
        "reported",
        f"{watchers['bytes_each'] / 1024:.0f} KiB each; {watchers['told']} told of its end within "
        f"{watchers['all_told_s']:.2f} s",
        None,
    )


def _waking(found: dict[str, Any]) -> Iterator[Row]:
    for name, one in found.items():
        yield Row(
            f"from a job for a model without workers to its picture: {name}",
            "reported",
            f"{spread(one['asleep_s'], 1)} s; awake {spread(one['awake_s'], 2)} s",
            None,
        )


def _bills(found: dict[str, Any]) -> Iterator[Row]:
    for kind in ("csv", "parquet"):
        one = found[kind]
        yield Row(
            f"a bill of {found['rows']:,} rows, {kind}, {one['megabytes']:,.0f} MB",
            "reported",
            f"{spread(summary([run['seconds'] for run in one['runs']]), 1)} s, at most "
            f"{max(run['peak_mb'] for run in one['runs']):.0f} MB of memory",
            None,
        )


_LINES = {
    "served": _served,
    "request": _request,
    "metrics": _metrics,
    "bills": _bills,
    "bounds": _bounds,
    "latency": _latency,
    "memory": _memory,
    "start": _start,
    "checkpoint": _checkpoint,
    "adapters": _adapters,
    "feature_cache": _feature_cache,
    "previews": _previews,
    "gateway": _gateway,
    "waking": _waking,
}
