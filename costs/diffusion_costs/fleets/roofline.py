"""How long a model takes at the least on hardware that nobody measured: the roofline.

An operation of f FLOP that moves b bytes takes at least max(f / peak, b / bandwidth) seconds
(Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009). Real devices attain a part of that. The
part is measured where a model was both counted and timed, and is a guess anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from diffusion_core.errors import ConfigError
from diffusion_core.profile import StepCurve
from diffusion_costs.fleets.datasheets import Datasheet
from diffusion_costs.tuning.measured import Layout, Parts, ServiceProfile


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a model: floating-point operations, and bytes read and written."""

    flops: float
    bytes: float


Operations = Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Hardware:
    """Peak FLOP/s and bytes/s, for one dtype."""

    flops: float
    bandwidth: float

    @classmethod
    def of(cls, sheet: Datasheet, dtype: str) -> Hardware:
        """From a datasheet; `ConfigError` where it has no figure for the dtype."""
        for name, flops in sheet.flops.items():
            if name == dtype:
                return cls(flops, sheet.bandwidth)
        raise ConfigError(
            f"{sheet.accelerator}: its datasheet has no {dtype} figure", field="flops"
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """What a pipeline's models do for a picture of default settings.

    Attributes:
        denoiser: one call's operations, by its rows.
        weights_gb: memory of all weights.
    """

    rows: int
    steps: int
    shape: str
    dtype: str
    encode: Operations
    decode: Operations
    denoiser: Mapping[int, Operations]
    weights_gb: float
    conditions: Mapping[str, object]


def seconds(operations: Operations, hardware: Hardware) -> float:
    """The roofline's time of operations one after another: no device is faster than that."""
    return sum(
        max(one.flops / hardware.flops, one.bytes / hardware.bandwidth) for one in operations
    )


def estimate(
    counted: Counted, hardware: Hardware, attained: float, machine: str, today: date
) -> ServiceProfile:
    """A profile that nobody measured: roofline times over the part of it that is attained.

    Scripts, image files and the server are left out: they depend on a processor that is not known.
    """
    curve = StepCurve(
        seconds={
            rows: seconds(operations, hardware) / attained
            for rows, operations in counted.denoiser.items()
        },
        unit=counted.rows,
        limit=max(counted.denoiser),
        stopped="limit",
    )
    parts = Parts(
        start=0.0,
        encode=seconds(counted.encode, hardware) / attained,
        decode=seconds(counted.decode, hardware) / attained,
        image=0.0,
        step=curve,
        denoiser=curve,
    )
    return ServiceProfile(
        conditions={**counted.conditions, "estimate": "roofline", "attained": attained},
        machine=machine,
        measured=today.isoformat(),
        rows=counted.rows,
        steps=counted.steps,
        shape=counted.shape,
        layouts=(Layout(workers=1, busy={1: {counted.shape: parts}}),),
    )


@dataclass(frozen=True, slots=True)
class Held:
    """The roofline of a part against its measured time, on hardware that was measured, too."""

    part: str
    roofline_s: float
    measured_s: float

    @property
    def attained(self) -> float:
        """The part of the roofline that was attained."""
        return self.roofline_s / self.measured_s


def held_against(counted: Counted, hardware: Hardware, measured: Parts) -> list[Held]:
    """Encoder, decoder and each batch of the denoiser that were both counted and timed."""
    found = [
        Held("encode", seconds(counted.encode, hardware), measured.encode),
        Held("decode", seconds(counted.decode, hardware), measured.decode),
    ]
    both = sorted(set(counted.denoiser) & set(measured.denoiser.seconds))
    return found + [
        Held(
            f"denoiser, {rows} rows",
            seconds(counted.denoiser[rows], hardware),
            measured.denoiser.seconds[rows],
        )
        for rows in both
    ]


def attained(counted: Counted, hardware: Hardware, measured: ServiceProfile) -> float:
    """The part of the roofline that a whole picture attains, at the measured cap."""
    parts = measured.layout(1).parts(1)[measured.shape]
    known = [rows for rows in counted.denoiser if rows in parts.denoiser.seconds]
    rows = max(one for one in known if one <= max(measured.cap, min(known)))
    share = counted.rows / rows
    least = counted.steps * share * seconds(counted.denoiser[rows], hardware)
    least += seconds(counted.encode, hardware) + seconds(counted.decode, hardware)
    seen = measured.steps * share * parts.step.at(rows) + parts.encode + parts.decode
    return least / seen
