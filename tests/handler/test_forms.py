"""A pipeline's other forms are found by name, and are those of diffusers' own table."""

from __future__ import annotations

import pytest
from diffusers.pipelines import auto_pipeline

from diffusion_engine.loading import _form_of

MAPPINGS = {
    "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}


@pytest.mark.parametrize("task", MAPPINGS)
@pytest.mark.parametrize("key", sorted(auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING))
def test_a_form_is_the_one_that_diffusers_names(task: str, key: str) -> None:
    pipeline = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING[key]
    named = MAPPINGS[task].get(key)
    found = _form_of(pipeline.__name__, task)
    if named is not None:
        assert found is named
