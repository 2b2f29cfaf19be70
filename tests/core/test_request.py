from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.capabilities import Capabilities
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import RequestSchema

SECRET = "xyzzy-plugh"
PARAMETERS = frozenset({"prompt", "negative_prompt", "guidance_scale", "clip_skip"})


def schema(defaults: Defaults | None = None, **limits: Any) -> RequestSchema:
    capabilities = Capabilities(
        pipeline_class="TinyPipeline",
        call_parameters={"text-to-image": PARAMETERS},
        default_width=512,
        default_height=512,
        size_multiple=8,
        schedulers=("DDIMScheduler", "PNDMScheduler"),
        default_scheduler="DDIMScheduler",
        max_clip_skip=2,
    )
    return RequestSchema(capabilities, Limits(**limits), defaults or Defaults())


SCHEMA = schema()


def refused(fields: dict[str, Any], *, form: bool = False) -> InvalidFieldError:
    with pytest.raises(InvalidFieldError) as raised:
        SCHEMA.parse_form(fields) if form else SCHEMA.parse_json(fields)
    return raised.value


def test_a_prompt_is_enough() -> None:
    request = SCHEMA.parse_json({"prompt": "a fox"})
    assert (request.prompt, request.num_inference_steps, request.guidance_scale) == (
        "a fox",
        20,
        7.5,
    )
    assert (request.width, request.height, request.pixels) == (512, 512, 512 * 512)
    assert request.prompt_2 is None
    assert request.max_sequence_length is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"num_inference_steps": "20"}, "num_inference_steps"),
        ({"num_inference_steps": 20.5}, "num_inference_steps"),
        ({"num_inference_steps": True}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 101}, "num_inference_steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"width": 516}, "width"),
        ({"height": 4096}, "height"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"num_images": 5}, "num_images"),
        ({"scheduler": "NoScheduler"}, "scheduler"),
        ({"clip_skip": 3}, "clip_skip"),
        ({"output_format": "gif"}, "output_format"),
        ({"quality": 101}, "quality"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 1000}, "timeout_s"),
        ({"step": 3}, "step"),
        ({"prompt_2": "x"}, "prompt_2"),
        ({"max_sequence_length": 8}, "max_sequence_length"),
        ({"controlnet": "x"}, "controlnet"),
        ({"ip_adapter_image": "x"}, "ip_adapter_image"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], field: str) -> None:
    base = {} if "prompt" in fields or not fields else {"prompt": "a fox"}
    assert refused({**base, **fields}).field == field


def test_a_field_that_the_pipeline_has_no_use_for_is_told_from_a_typo() -> None:
    assert "TinyPipeline has no use" in refused({"prompt": "x", "prompt_2": "y"}).message
    assert "not a known field" in refused({"prompt": "x", "promt": "y"}).message


def test_bounds_are_told() -> None:
    assert refused({"prompt": "x", "num_inference_steps": 101}).bound == {"maximum": 100}
    assert refused({"prompt": "x", "width": 516}).bound == {"multiple_of": 8}


def test_a_form_is_text_and_json_is_not() -> None:
    form = {"prompt": "7", "num_inference_steps": "7", "embed_prompt": "true", "seed": "9"}
    request = SCHEMA.parse_form(form)
    assert (request.prompt, request.num_inference_steps, request.seed) == ("7", 7, 9)
    assert request.embed_prompt is True
    assert refused({"prompt": "x", "num_inference_steps": "7.5"}, form=True).field == (
        "num_inference_steps"
    )


values = st.one_of(
    st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text(), max_size=3)
)


@given(st.dictionaries(st.sampled_from(sorted(SCHEMA.json_schema()["properties"])), values))
def test_any_values_are_a_request_or_name_a_field(fields: dict[str, Any]) -> None:
    fault = None
    try:
        SCHEMA.parse_json(fields)
    except InvalidFieldError as error:
        fault = error
    assert fault is None or (fault.field and fault.message)


@pytest.mark.parametrize("field", ["prompt", "seed", "scheduler", "width", "output_format", SECRET])
@pytest.mark.parametrize("value", [SECRET * 500, [SECRET], {SECRET: SECRET}])
@pytest.mark.parametrize("form", [False, True])
def test_what_was_sent_is_not_repeated(field: str, value: Any, form: bool) -> None:
    error = refused({"prompt": "x", field: value}, form=form)
    assert SECRET not in str(error.problem())


def test_defaults_outside_of_the_limits_are_the_configs_fault() -> None:
    with pytest.raises(ConfigError, match="disagree"):
        schema(Defaults(num_inference_steps=50), max_steps=30)


def test_the_json_schema_has_this_models_bounds() -> None:
    properties = SCHEMA.json_schema()["properties"]
    assert properties["num_inference_steps"]["maximum"] == 100
    assert properties["prompt"]["maxLength"] == 2000
    assert "prompt_2" not in properties
