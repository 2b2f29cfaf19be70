"""Adapters in a request and in a model config: what is taken, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_core.adapters import ADAPTERS_FOLDER
from diffusion_core.capabilities import Capabilities
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.identity import FileRecord, archive_identity
from diffusion_core.limits import Defaults, Limits
from diffusion_core.model_config import parse_model_config
from diffusion_core.request import RequestSchema

SECRET = "xyzzy-plugh"


def schema(*names: str, **limits: Any) -> RequestSchema:
    capabilities = Capabilities(
        pipeline_class="TinyPipeline",
        call_parameters={"text-to-image": frozenset({"prompt"})},
        default_width=512,
        default_height=512,
        size_multiple=8,
        default_scheduler="DDIMScheduler",
        adapters=names,
    )
    return RequestSchema(capabilities, Limits(**limits), Defaults())


SCHEMA = schema("pixel-art", "toy", "x.2", max_adapters=2)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"toy": 0.5, "pixel-art": 1}, {"pixel-art": 1.0, "toy": 0.5}),
        ({"toy": -2}, {"toy": -2.0}),
        ({"toy": 0.5, "x.2": 0.0}, {"toy": 0.5}),
        ({"toy": 0}, None),
        ({}, None),
        (None, None),
    ],
)
def test_weights_by_name(asked: Any, kept: Any) -> None:
    found = SCHEMA.parse_json({"prompt": "a fox", "adapters": asked}).adapters
    assert found == kept
    assert list(found or ()) == sorted(found or ())


def test_a_form_has_them_as_json_text() -> None:
    fields = {"prompt": "a fox", "adapters": '{"toy": 0.5, "pixel-art": 1}'}
    assert SCHEMA.parse_form(fields).adapters == {"pixel-art": 1.0, "toy": 0.5}
    assert SCHEMA.parse_form({"prompt": "a fox"}).adapters is None


@pytest.mark.parametrize(
    "asked",
    [
        {SECRET: 1.0},
        {"toy": 1.0, SECRET: 1.0},
        {"toy": 2.1},
        {"toy": -2.1},
        {"toy": float("nan")},
        {"toy": float("inf")},
        {"toy": "1.0"},
        {"toy": True},
        {"toy": None},
        {"toy": 1.0, "x.2": 1.0, "pixel-art": 1.0},
        ["toy"],
        "toy",
        7,
    ],
)
def test_what_is_refused(asked: Any) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        SCHEMA.parse_json({"prompt": "a fox", "adapters": asked})
    error = raised.value
    assert (error.status, (error.field or "").partition(".")[0]) == (422, "adapters")
    assert SECRET not in str(error.problem())


@pytest.mark.parametrize(
    "text", ["toy", "[", '["toy"]', '{"toy": NaN}', '{"toy": "high"}', "[" * 9999, '{"a": 1}']
)
def test_forms_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        SCHEMA.parse_form({"prompt": "a fox", "adapters": text})
    assert (raised.value.field or "").startswith("adapters")


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(InvalidFieldError) as raised:
        SCHEMA.parse_json({"prompt": "a fox", "adapters": {SECRET: 1.0}})
    problem = raised.value.problem()
    assert problem["bound"] == {"expected": "pixel-art, toy, x.2"}
    assert "pixel-art, toy, x.2" in problem["detail"]


def test_a_model_without_adapters_says_so() -> None:
    bare = schema()
    with pytest.raises(InvalidFieldError, match="this model has none"):
        bare.parse_json({"prompt": "a fox", "adapters": {"toy": 1.0}})
    assert "adapters" not in bare.json_schema()["properties"]
    assert bare.parse_json({"prompt": "a fox"}).adapters is None


def test_the_schema_tells_names_and_bounds() -> None:
    field = SCHEMA.json_schema()["properties"]["adapters"]["anyOf"][0]
    assert set(field["properties"]) == {"pixel-art", "toy", "x.2"}
    assert field["properties"]["toy"] == {"type": "number", "minimum": -2.0, "maximum": 2.0}
    assert (field["additionalProperties"], field["maxProperties"]) == (False, 2)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"files": {"two words": "a.safetensors"}}, "handler.adapters.files"),
        ({"files": {"../up": "a.safetensors"}}, "handler.adapters.files"),
        ({"files": {"a": 3}}, "handler.adapters.files"),
        ({"max_rank": 0}, "handler.adapters.max_rank"),
        ({"maximal_rank": 8}, "handler.adapters.maximal_rank"),
    ],
)
def test_settings_that_are_refused(settings: Any, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_model_config({"handler": {"adapters": settings}})
    assert (raised.value.field or "").startswith(field)


def test_an_adapter_is_part_of_the_identity_and_none_changes_nothing() -> None:
    files = {"pipeline/unet/weights.safetensors": FileRecord(size=3, sha256="aa")}
    place = f"{ADAPTERS_FOLDER}/toy.safetensors"
    one = {**files, place: FileRecord(size=1, sha256="bb")}
    other = {**files, place: FileRecord(size=1, sha256="cc")}
    renamed = {**files, f"{ADAPTERS_FOLDER}/doll.safetensors": FileRecord(size=1, sha256="bb")}
    assert len({archive_identity(each, {}) for each in (files, one, other, renamed)}) == 4
    # As it was before there were adapters: nobody's kept pictures are lost.
    before = "38762c813a6a2530d7f0cdca7e7554898a54c8fd78c734dadee9f370c5484797"
    assert archive_identity(files, {}) == before
