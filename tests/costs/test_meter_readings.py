"""Meters from a real Prometheus, whose blocks hold counters that begin anew and gaps."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from started_programs import free_address, wait_until_ready

from diffusion_costs.calendar import Calendar
from diffusion_costs.review import readings
from diffusion_costs.review.figures import Period
from diffusion_costs.review.metering import Meters, seconds
from diffusion_costs.review.readings import PrometheusError, Readings

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Debian's package prometheus is not installed",
)

DAYS = Period(date(2026, 9, 2), date(2026, 9, 3))
BEGIN = datetime(2026, 9, 1, 22, tzinfo=UTC)
MINUTES = range(0, 52 * 60, 5)
BUCKETS = {"1.0": 0.5, "10.0": 0.98, "20.0": 1.0, "+Inf": 1.0}


def counter(name: str, labels: str, each: float, since: int = 0, anew: int | None = None) -> str:
    """Samples five minutes apart of a counter that grows by `each` a minute from `since` on, begins
    anew at `anew`, and was not scraped for three hours around the first midnight but one."""
    lines = []
    for minute in MINUTES:
        if minute < since or 24 * 60 < minute < 27 * 60:
            continue
        value = (minute - since) * each
        if anew is not None and minute >= anew:
            value = (minute - anew) * each
        at = (BEGIN + timedelta(minutes=minute)).timestamp()
        lines.append(f"{name}{{{labels}}} {value} {at:.0f}")
    return "\n".join(lines)


def exposition() -> str:
    charged = "diffusion_gateway_charged_device_seconds"
    families = {
        charged: [
            counter(f"{charged}_total", 'model="m",tenant="a",bucket="used"', 20, anew=600),
            # Appears on the second day, while others have been there.
            counter(f"{charged}_total", 'model="m",tenant="b",bucket="used"', 10, since=1800),
        ],
        **{
            f"diffusion_gateway_held_{what}_seconds": [
                counter(
                    f"diffusion_gateway_held_{what}_seconds_total",
                    f'machine="big",purchase="spot",instance="{one}"',
                    each,
                )
                for one in ("1", "2")
            ]
            # Three workers share each machine.
            for what, each in (("machine", 30), ("device", 90))
        },
        # A gateway that did not count its workers' time yet.
        "old_machine_seconds": [
            counter("old_machine_seconds_total", 'machine="big",purchase="spot"', 30)
        ],
        "diffusion_requests": [
            counter("diffusion_requests_total", 'model="m",status="completed"', 2),
            counter("diffusion_requests_total", 'model="m",status="failed"', 5),
        ],
        "diffusion_gateway_images": [counter("diffusion_gateway_images_total", 'model="m"', 3)],
    }
    phase = "diffusion_gateway_phase_duration_seconds"
    text = [f"# TYPE {name} counter\n" + "\n".join(lines) for name, lines in families.items()]
    text.append(f"# TYPE {phase} histogram")
    for bound, share in BUCKETS.items():
        labels = f'model="m",phase="whole",le="{bound}"'
        text.append(counter(f"{phase}_bucket", labels, 2 * share))
    return "\n".join([*text, "# EOF\n"])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "metrics").write_text(exposition())
    (folder / "prometheus.yml").write_text("global: {}\n")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "metrics", "data"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    address = free_address()
    process = subprocess.Popen(
        [
            *("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
            *("--storage.tsdb.retention.time=100y", f"--web.listen-address={address}"),
        ],
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(f"http://{address}")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def meters(prometheus: str) -> Meters:
    return Readings(prometheus, Calendar(ZoneInfo("UTC"))).meters(DAYS)


def test_growth_by_day_through_fresh_starts_and_gaps(meters: Meters) -> None:
    whole = 24 * 60 * 20
    used = {(one.tenant, one.day.day): one.device_seconds for one in meters.charged}
    # What grew between the last sample before the fresh start and its first one is not known.
    assert used["a", 2] == pytest.approx(whole - 5 * 20)
    assert used["a", 3] == pytest.approx(whole, rel=0.01)
    assert used["b", 3] == pytest.approx((50 * 60 - 1800) * 10, rel=0.01)


def test_machines_of_several_gateways_and_their_workers(meters: Meters) -> None:
    assert {(one.machine, one.purchase) for one in meters.held} == {("big", "spot")}
    machines = sum(one.machine_seconds for one in meters.held)
    assert machines == pytest.approx(2 * 2 * 24 * 60 * 30, rel=0.01)
    assert seconds(meters.held) == pytest.approx(3 * machines)


def test_machines_of_gateways_that_did_not_count_workers_are_refused(
    prometheus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "MACHINES", "old_machine_seconds_total")
    monkeypatch.setattr(readings, "DEVICES", "old_device_seconds_total")
    with pytest.raises(PrometheusError, match=r"of 2026-09-02 .* of an earlier version"):
        Readings(prometheus, Calendar(ZoneInfo("UTC"))).meters(DAYS)


def test_requests_images_and_latencies(meters: Meters) -> None:
    assert [one.requests for one in meters.served] == pytest.approx([2880, 2880], rel=0.01)
    assert [one.images for one in meters.served] == pytest.approx([4320, 4320], rel=0.01)
    assert [one.median_s for one in meters.served] == pytest.approx([1, 1], rel=0.01)
    assert [one.p99_s for one in meters.served] == pytest.approx([15, 15], rel=0.01)


def test_what_prometheus_says_is_told() -> None:
    nobody = Readings("http://127.0.0.1:9", Calendar(ZoneInfo("UTC")))
    with pytest.raises(PrometheusError, match=r"127\.0\.0\.1:9"):
        nobody.meters(DAYS)
