"""Feature caching that is right in mixed batches: each row decides for itself and keeps its own.

`anatomy.py` says which blocks of a denoiser may be skipped, `features.py` what a request keeps
between its steps, `passage.py` which rows of a call skip them, `blocks.py` sends them around the
blocks, and `cache.py` is all of it for one denoiser.
"""
