"""Serving with Triton: its model repository, its environment, its process."""
