"""Profiles of machines: those that were measured, and estimates where none was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from archiving.unpacked import unpacked
from diffusion_core.errors import ConfigError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config
from diffusion_core.profile import Shape
from diffusion_costs.fleets.datasheets import Datasheet
from diffusion_costs.fleets.roofline import (
    Counted,
    Hardware,
    Held,
    attained,
    estimate,
    held_against,
)
from diffusion_costs.tuning.measured import ServiceProfile
from tuning.conditions import archive_conditions, model_conditions
from tuning.measuring import kept_profiles


def profiles_of(model: Path, config: Path | None, given: Path | None) -> dict[str, ServiceProfile]:
    """Profiles of the model by the machine that each was measured on.

    Those of `given`, a file or a folder, must all be of this archive, dtype and these libraries:
    `ConfigError` names what differs. Of those that this machine keeps, others are passed over.
    """
    with unpacked(model, config) as folder:
        conditions = model_conditions(folder)
    if given is None:
        kept = [one for one in kept_profiles() if _is_of(one, conditions)]
        return {one.machine: one for one in kept if one.machine is not None}
    paths = sorted(given.glob("*.json")) if given.is_dir() else [given]
    if not paths:
        raise ConfigError(f"{given}: holds no profile (*.json)")
    found = {}
    for path in paths:
        profile = ServiceProfile.read(path)
        try:
            profile.require(conditions)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}", field=error.field) from None
        if profile.machine is None:
            raise ConfigError(
                f"{path}: machine: is missing: measure with MACHINE=<a name of prices.yaml>",
                field="machine",
            )
        found[profile.machine] = profile
    return found


class Rooflines:
    """Estimates of one model, whose operations are counted when the first is asked for.

    Attributes:
        held: the roofline against what was measured here; empty where nothing was.
    """

    def __init__(self, model: Path, config: Path | None, say: Callable[[str], None]) -> None:
        self._model = model
        self._config = config
        self._say = say
        self.held: list[Held] = []

    @property
    def note(self) -> str:
        """Where estimates come from."""
        if self.held and self._attained < 1:
            return f"roofline, of which {self._attained:.0%} is attained as on this machine"
        return "bare roofline, which no machine attains"

    def estimate(self, sheet: Datasheet, machine: str) -> ServiceProfile:
        """A machine's profile by its datasheet; `ConfigError` where the weights do not fit in."""
        counted, share = self._counted, self._attained
        if counted.weights_gb > sheet.memory_gb:
            raise ConfigError(
                f"its {sheet.memory_gb:g} GB do not hold {counted.weights_gb:.1f} GB of weights"
            )
        hardware = Hardware.of(sheet, counted.dtype)
        return estimate(counted, hardware, share, machine, datetime.now(UTC).date())

    @cached_property
    def _counted(self) -> Counted:
        from choosing.counting import count
        from diffusion_engine.service import DiffusionService

        self._say("counting the model's operations")
        with unpacked(self._model, self._config) as folder:
            service = DiffusionService(folder, read_model_config(folder / CONFIG_NAME))
            try:
                defaults = service.schema.parse_json({"prompt": "counted"})
                shape = Shape(defaults.width, defaults.height)
                conditions: dict[str, Any] = model_conditions(folder)
                return count(service, shape, conditions)
            finally:
                service.close()

    @cached_property
    def _attained(self) -> float:
        """The part of the roofline that this machine attains; 1 where it has no profile."""
        measured = self._measured_here()
        counted = self._counted
        if measured is None or measured.shape != counted.shape:
            self._say("no profile of this machine (make profile): estimates are bare rooflines")
            return 1.0
        hardware = self._peaks(measured)
        parts = measured.layout(1).parts(1)[measured.shape]
        self.held = held_against(counted, hardware, parts)
        share = attained(counted, hardware, measured)
        if share > 1:
            self._say(
                "this machine attains more than its roofline: something else ran while its peaks"
                " were measured, or convolutions take a shortcut; estimates are bare rooflines"
            )
        return min(1.0, share)

    def _measured_here(self) -> ServiceProfile | None:
        with unpacked(self._model, self._config) as folder:
            conditions = archive_conditions(folder)
        return next((one for one in kept_profiles() if _is_of(one, conditions)), None)

    def _peaks(self, measured: ServiceProfile) -> Hardware:
        import torch

        from choosing.peaks import measure_peaks
        from diffusion_engine.loading import choose_device

        with unpacked(self._model, self._config) as folder:
            settings = read_model_config(folder / CONFIG_NAME).handler
        threads = measured.layout(1).threads
        if threads is not None:
            torch.set_num_threads(threads)
        self._say("measuring what this machine can do at most")
        return measure_peaks(choose_device(settings.device), settings.dtype)


def _is_of(profile: ServiceProfile, conditions: dict[str, Any]) -> bool:
    try:
        profile.require(conditions)
    except ConfigError:
        return False
    return True
