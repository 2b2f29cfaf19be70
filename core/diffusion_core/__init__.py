"""What every room agrees on: requests and limits, errors, identity, settings. Imports no torch."""

__version__ = "0.1.0"
