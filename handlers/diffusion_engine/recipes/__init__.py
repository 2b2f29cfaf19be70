"""Recipes: what `handler.optimization` does to a loaded pipeline so that pictures cost less.

Every worker applies them through `apply`, and so does the program that measures them: what was
measured is what is served. Each keeps rows apart, so a request draws the same picture alone and in
any batch; a way that could not (activations quantized by whole tensors) is not offered.
"""

from diffusion_engine.recipes.applying import apply, libraries, parts_of_its_own

__all__ = ["apply", "libraries", "parts_of_its_own"]
