from __future__ import annotations

import pytest

from diffusion_core import errors
from diffusion_core.errors import ServingError

CLASSES = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, ServingError) and one is not ServingError
]
KINDS = {
    "client",
    "validation",
    "model",
    "out_of_memory",
    "deadline",
    "cancelled",
    "upstream",
    "infrastructure",
}


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_has_a_status_a_code_and_a_known_kind(error: type[ServingError]) -> None:
    assert 400 <= error.status <= 599
    assert error.code.isidentifier()
    assert error.kind in KINDS


def test_codes_differ() -> None:
    assert len({one.code for one in CLASSES}) == len(CLASSES)


def test_a_problem_document_tells_what_is_known() -> None:
    bare = ServingError("it broke").problem()
    assert bare == {
        "type": "urn:torchserve-diffusers:internal_error",
        "title": "internal error",
        "status": 500,
        "detail": "it broke",
        "code": "internal_error",
    }
    full = errors.InvalidFieldError("no", field="seed", bound={"minimum": 0}).problem()
    assert (full["field"], full["bound"], full["status"]) == ("seed", {"minimum": 0}, 422)
