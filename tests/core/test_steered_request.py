"""What a request may ask of ControlNets and of an IP-Adapter."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.conditioning import require_controlnet_fits
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.identity import FileRecord, archive_identity
from diffusion_core.limits import Defaults, Limits
from diffusion_core.model_config import parse_model_config
from diffusion_core.request import RequestSchema
from diffusion_core.source_image import plain_image

PLAIN = frozenset({"prompt", "negative_prompt", "guidance_scale", "guidance_rescale", "clip_skip"})
IMAGE = base64.b64encode(plain_image(64, 64).data).decode()
CONTROLLED = {"prompt": "a cat", "control_image": IMAGE}


def schema(
    *controlnets: str,
    image_prompts: bool = False,
    tasks: tuple[Task, ...] = ("text-to-image", "image-to-image"),
    **limits: Any,
) -> RequestSchema:
    capabilities = Capabilities(
        pipeline_class="TinyPipeline",
        call_parameters=dict.fromkeys(tasks, PLAIN),
        default_width=64,
        default_height=64,
        size_multiple=8,
        default_scheduler="DDIMScheduler",
        max_clip_skip=2,
        controlnets=controlnets,
        controlled_parameters=dict.fromkeys(tasks, PLAIN - {"guidance_rescale"}),
        image_prompts=image_prompts,
    )
    return RequestSchema(capabilities, Limits(min_size=8, **limits), Defaults())


SCHEMA = schema("canny", "depth", image_prompts=True)


def refused(fields: dict[str, Any], of: RequestSchema = SCHEMA) -> InvalidFieldError:
    with pytest.raises(InvalidFieldError) as raised:
        of.parse_json({"prompt": "a cat", **fields})
    return raised.value


def test_a_control_image_is_enough() -> None:
    request = SCHEMA.parse_json(CONTROLLED)
    assert request.task == "text-to-image"
    assert (request.controlnet, request.controlnet_conditioning_scale) == ("canny", 1.0)
    assert (request.control_guidance_start, request.control_guidance_end) == (0.0, 1.0)
    assert request.control_image is not None
    assert request.ip_adapter_scale is None


def test_a_reference_picture_is_enough() -> None:
    request = SCHEMA.parse_json({"prompt": "a cat", "ip_adapter_image": IMAGE, "image": IMAGE})
    assert request.task == "image-to-image"
    assert (request.ip_adapter_scale, request.controlnet) == (1.0, None)


def test_without_pictures_nothing_is_set() -> None:
    request = SCHEMA.parse_json({"prompt": "a cat"})
    assert request.control_guidance_end is None
    assert request.controlnet_conditioning_scale is None
    assert request.guidance_rescale == 0.0


def test_a_form_brings_files_and_text() -> None:
    request = SCHEMA.parse_form(
        {
            "prompt": "a cat",
            "control_image": plain_image(8, 8).data,
            "controlnet": "depth",
            "controlnet_conditioning_scale": "0.5",
        }
    )
    assert (request.controlnet, request.controlnet_conditioning_scale) == ("depth", 0.5)
    assert request.control_image is not None
    assert request.control_image.width == 8


@pytest.mark.parametrize(
    ("fields", "field", "bound"),
    [
        ({"controlnet": "canny"}, "controlnet", None),
        ({"control_guidance_end": 0.5}, "control_guidance_end", None),
        ({"ip_adapter_scale": 0.5}, "ip_adapter_scale", None),
        ({**CONTROLLED, "controlnet": "pose"}, "controlnet", {"expected": "'canny' or 'depth'"}),
        (
            {**CONTROLLED, "controlnet_conditioning_scale": 2.1},
            "controlnet_conditioning_scale",
            {"maximum": 2.0},
        ),
        (
            {**CONTROLLED, "controlnet_conditioning_scale": -1.0},
            "controlnet_conditioning_scale",
            {"minimum": 0},
        ),
        (
            {**CONTROLLED, "control_guidance_start": 0.5, "control_guidance_end": 0.5},
            "control_guidance_end",
            {"exclusive_minimum": 0.5},
        ),
        ({**CONTROLLED, "control_guidance_end": 1.5}, "control_guidance_end", {"maximum": 1}),
        ({**CONTROLLED, "guidance_rescale": 0.5}, "guidance_rescale", None),
        ({"ip_adapter_image": IMAGE, "ip_adapter_scale": 3.0}, "ip_adapter_scale", {"maximum": 2}),
        ({"ip_adapter_image_embeds": []}, "ip_adapter_image_embeds", None),
        ({"control_image": "not base64!"}, "control_image", None),
    ],
)
def test_what_is_refused(fields: dict[str, Any], field: str, bound: dict[str, Any] | None) -> None:
    fault = refused(fields)
    assert fault.field == field
    assert fault.bound == bound


def test_limits_of_pictures_are_the_config_s() -> None:
    small = schema("canny", max_image_pixels=63 * 64)
    assert refused(CONTROLLED, small).bound == {"maximum": 63 * 64}
    with pytest.raises(ConfigError, match="max_image_pixels"):
        parse_model_config({"handler": {"limits": {"max_image_pixels": 1 << 27}}})


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("control_image", "no ControlNet"),
        ("controlnet", "no ControlNet"),
        ("ip_adapter_image", "no IP-Adapter"),
        ("ip_adapter_scale", "no IP-Adapter"),
    ],
)
def test_a_model_that_has_neither_says_so(field: str, words: str) -> None:
    fault = refused({field: "x"}, schema())
    assert fault.field == field
    assert words in fault.message


def test_a_field_without_effect_is_let_be_where_it_says_nothing() -> None:
    assert SCHEMA.parse_json({**CONTROLLED, "guidance_rescale": 0.0}).guidance_rescale is None


class TestModelsThatOnlyInpaint:
    schema = schema(tasks=("inpainting",))

    @pytest.mark.parametrize(("fields", "field"), [({}, "image"), ({"image": IMAGE}, "mask_image")])
    def test_what_lacks_is_named(self, fields: dict[str, Any], field: str) -> None:
        fault = refused(fields, self.schema)
        assert fault.field == field
        assert "required" in fault.message.lower()

    def test_the_example_is_a_whole_request_of_the_usual_size(self) -> None:
        request = self.schema.example(seed=3)
        assert (request.task, request.width, request.height, request.seed) == (
            "inpainting",
            64,
            64,
            3,
        )
        assert request.image is not None
        assert request.mask_image is not None

    def test_defaults_beyond_the_limits_are_the_config_s_fault(self) -> None:
        with pytest.raises(ConfigError, match=r"handler\.defaults and handler\.limits"):
            schema(tasks=("inpainting",), max_size=32)


def test_the_identity_knows_what_is_added_to_a_pipeline() -> None:
    def files(**others: str) -> dict[str, FileRecord]:
        places = {"pipeline/unet/config.json": "a", **others}
        return {path: FileRecord(size=1, sha256=sha) for path, sha in places.items()}

    names = [
        archive_identity(found, {})
        for found in (
            files(),
            files(**{"controlnets/canny/config.json": "b"}),
            files(**{"controlnets/canny/config.json": "c"}),
            files(**{"ip_adapter/ip_adapter.safetensors": "b"}),
        )
    ]
    assert len(set(names)) == len(names)


def test_a_controlnet_of_another_model_is_refused_by_what_differs() -> None:
    unet = {"cross_attention_dim": 2048, "block_out_channels": (320, 640)}
    fits = {"cross_attention_dim": 2048, "block_out_channels": [320, 640]}
    require_controlnet_fits("canny", fits, unet)
    with pytest.raises(ConfigError, match="its cross_attention_dim is 768, the UNet's 2048"):
        require_controlnet_fits("canny", {**fits, "cross_attention_dim": 768}, unet)
    with pytest.raises(ConfigError, match="pictures of 1 channels"):
        require_controlnet_fits("canny", {**fits, "conditioning_channels": 1}, unet)
