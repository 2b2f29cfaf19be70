"""The error that ends a program with one sentence."""


class Trouble(Exception):  # noqa: N818 - a sentence for a person, not a fault of the program
    """Something that a person can put right; its text says what and how."""
