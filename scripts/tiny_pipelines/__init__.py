"""diffusers' own pipeline classes at tiny sizes, with random weights and nothing downloaded."""

from tiny_pipelines.build import NoRecipeError, tiny

__all__ = ["NoRecipeError", "tiny"]
