"""Makes images: diffusers' own pipeline calls, paused at their models and answered together."""
