from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.validation import first_error, invalid_field

SECRET = "xyzzy"


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=3)] = 1
    choice: Literal["a", "b"] = "a"


def error(**fields: object) -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        Sample(**fields)
    return raised.value


@pytest.mark.parametrize("fields", [{"count": SECRET}, {"choice": SECRET}])
def test_the_input_is_not_in_the_message(fields: dict[str, object]) -> None:
    field, message, bound, _ = first_error(error(**fields))
    assert field in fields
    assert SECRET not in f"{message} {bound}"


def test_bounds_are_plain_data() -> None:
    assert first_error(error(count=0))[2] == {"minimum": 1}
    assert first_error(error(count=4))[2] == {"maximum": 3}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("typo", "typo"),
        ("a prompt sent as a key", "(unprintable name)"),
        ("x" * 65, "(unprintable name)"),
    ],
)
def test_an_unknown_name_is_shown_only_where_it_is_a_name(name: str, shown: str) -> None:
    assert invalid_field(error(**{name: 1})).field == shown
