"""Counts what a model does, and measures what this machine can do, for the choice of machines."""
