"""A service profile: measured part by part, kept, and found again while it holds."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from archiving.unpacked import unpacked
from diffusion_core.errors import ConfigError
from diffusion_core.identity import CONFIG_NAME, PIPELINE_FOLDER
from diffusion_core.model_config import read_model_config
from diffusion_costs.tuning.measured import ServiceProfile
from tuning.conditions import archive_conditions
from tuning.layouts import measure_layouts, thread_counts
from tuning.overheads import measure_overheads
from tuning.served import Tuner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What is to be measured: a pipeline folder or archive, and the config it is served with.

    `machine` is the name that config/prices.yaml has for this machine.
    """

    model: Path
    config: Path | None
    most_workers: int = 2
    machine: str | None = None


def measure_service(subject: Subject, say: Callable[[str], None]) -> ServiceProfile:
    """All parts on this machine: minutes, in which nothing else should run."""
    from diffusion_engine.loading import choose_device

    with unpacked(subject.model, subject.config) as folder:
        config = read_model_config(folder / CONFIG_NAME)
        device = choose_device(config.handler.device).type
        counts = thread_counts(device, subject.most_workers)
        about, layouts = measure_layouts(folder, counts, say)
        profile = ServiceProfile(
            conditions=about.conditions,
            machine=subject.machine,
            measured=datetime.now(UTC).date().isoformat(),
            rows=about.rows,
            steps=about.steps,
            shape=about.shapes[0],
            worker_mb=about.memory_mb,
            layouts=tuple(layouts),
        )
        with Tuner(str(folder / PIPELINE_FOLDER), folder / CONFIG_NAME, say) as tuner:
            overheads = measure_overheads(profile, tuner, say)
    return profile.model_copy(update={"overheads": tuple(overheads)})


def obtain_service(
    subject: Subject, say: Callable[[str], None], *, again: bool = False
) -> ServiceProfile:
    """The kept profile of these conditions, or one that is measured now and kept."""
    with unpacked(subject.model, subject.config) as folder:
        conditions = archive_conditions(folder)
    if not again:
        for kept in kept_profiles():
            try:
                kept.require(conditions)
            except ConfigError:
                continue
            if max(one.workers for one in kept.layouts) >= subject.most_workers:
                say(f"measured on {kept.measured}; AGAIN=1 measures again")
                return kept
    profile = measure_service(subject, say)
    save(profile, profile_folder() / f"{profile.key}.service.json")
    return profile


def kept_profiles() -> list[ServiceProfile]:
    """Those that this machine keeps, of whatever model; a file that is none is passed over."""
    found = []
    for path in sorted(profile_folder().glob("*.service.json")):
        try:
            found.append(ServiceProfile.read(path))
        except ConfigError as error:
            logger.warning("profile ignored: %s", error)
    return found


def save(profile: ServiceProfile, path: Path) -> None:
    """Writes the profile whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        file.write(profile.to_json())
    os.replace(file.name, path)


def profile_folder() -> Path:
    """Where workers keep their profiles of t(b), too."""
    from diffusion_engine.profile_store import default_folder

    return default_folder()


def require_service(path: Path, subject: Subject) -> ServiceProfile:
    """The profile in a file; `ConfigError` where it is of another archive, library or device."""
    with unpacked(subject.model, subject.config) as folder:
        conditions = archive_conditions(folder)
    profile = ServiceProfile.read(path)
    profile.require(conditions)
    return profile
