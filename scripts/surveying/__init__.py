"""How far the engine reaches: each text-to-image pipeline of diffusers, tried at a tiny size."""
