"""Low-rank adapters (LoRA): requests with different ones, several, and none share a model's call.

`weights.py` is an adapter as a file holds it, `bank.py` the adapters that the served models have,
`stacks.py` one call's adapters row by row, and `layers.py` the arithmetic of a layer. The models
stay as they are: a layer adds a row's adapters for the length of a call that has any, and calls
without cost nothing.
"""

from diffusion_engine.adapters.bank import AdapterBank
from diffusion_engine.adapters.layers import UnlikeRowsError
from diffusion_engine.adapters.loading import load_adapters, require_bounds
from diffusion_engine.adapters.stacks import NO_BLEND, Blend
from diffusion_engine.adapters.weights import Adapter, LowRank, read_adapter, write_adapter

__all__ = [
    "NO_BLEND",
    "Adapter",
    "AdapterBank",
    "Blend",
    "LowRank",
    "UnlikeRowsError",
    "load_adapters",
    "read_adapter",
    "require_bounds",
    "write_adapter",
]
