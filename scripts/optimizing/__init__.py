"""Variants of a pipeline: built, run beside the original, compared, and one of them chosen."""
