"""Other ways to serve the same pipeline, as their own guides do it, to compare with."""
