"""Pictures that steer a drawing beside its prompt: ControlNets and image prompts (IP-Adapter).

`control.py` is a ControlNet as a request's script calls it, `forms.py` the pipelines that call one,
`image_prompts.py` the reference pictures of a call's rows. `loading.py` reads both from an archive.
"""

from diffusion_engine.conditioning.control import CONTROLNET, ControlNetStandIn, no_residuals
from diffusion_engine.conditioning.forms import controlled_forms
from diffusion_engine.conditioning.image_prompts import ImagePrompts
from diffusion_engine.conditioning.loading import (
    NO_CONDITIONING,
    Conditioning,
    load_conditioning,
    load_image_prompts,
)

__all__ = [
    "CONTROLNET",
    "NO_CONDITIONING",
    "Conditioning",
    "ControlNetStandIn",
    "ImagePrompts",
    "controlled_forms",
    "load_conditioning",
    "load_image_prompts",
    "no_residuals",
]
