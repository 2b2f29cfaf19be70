"""TorchServes and their models: what they serve, and which are awake."""
