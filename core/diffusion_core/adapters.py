"""Adapters: low-rank weights (LoRA) that a request adds to its model's own, by name and weight."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from diffusion_core.limits import Limits

ADAPTERS_FOLDER = "adapters"
"""The folder of an archive that holds its adapters, a safetensors file for each."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

PositiveInt = Annotated[int, Field(gt=0)]

AdapterName = Annotated[str, Field(pattern=NAME_PATTERN)]


class AdapterSettings(BaseModel):
    """The LoRAs of a model, and what they may come to.

    Attributes:
        files: a safetensors file for each name, relative to the model config's own folder.
        max_rank: of any layer of any of them.
        max_mb: of all their weights together, in the dtype they are served in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[AdapterName, str] = {}
    max_rank: PositiveInt = 128
    max_mb: PositiveInt = 1024

    def packed(self) -> AdapterSettings:
        """The same with the places that the files have inside an archive."""
        files = {name: f"{ADAPTERS_FOLDER}/{name}.safetensors" for name in self.files}
        return self.model_copy(update={"files": files})


def adapters_field(names: Sequence[str], limits: Limits) -> Any:
    """The type of a request's field: weights by the names of adapters that there are.

    A form has the same as JSON text.
    """

    def known(value: Any) -> Any:
        if isinstance(value, str):
            value = _parsed(value)
        if not isinstance(value, dict):
            return value
        # Names that are not there are the client's own text: they are not repeated.
        if not value.keys() <= set(names):
            raise PydanticCustomError(
                "unknown_adapter",
                "names an adapter that is not there; there are: {expected}",
                {"expected": ", ".join(names)},
            )
        if len(value) > limits.max_adapters:
            raise PydanticCustomError(
                "too_many_adapters",
                "names more adapters than one request may have: {max_length}",
                {"max_length": limits.max_adapters},
            )
        return value

    bound = limits.max_adapter_weight
    weight = {"type": "number", "minimum": -bound, "maximum": bound}
    schema = {
        "type": "object",
        "properties": dict.fromkeys(names, weight),
        "additionalProperties": False,
        "maxProperties": limits.max_adapters,
    }
    weights = dict[str, Annotated[float, Field(ge=-bound, le=bound)]]
    return Annotated[weights, BeforeValidator(known), WithJsonSchema(schema)]


def blend(weights: dict[str, float] | None) -> dict[str, float] | None:
    """One way of writing for each mixture: sorted, without what adds nothing; None for nothing."""
    kept = {name: weight for name, weight in sorted((weights or {}).items()) if weight}
    return kept or None


def _parsed(text: str) -> Any:
    """A form's text; numbers stay text, as all values of a form are."""
    try:
        return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise PydanticCustomError("not_json", "must be JSON: an object of weights") from None
