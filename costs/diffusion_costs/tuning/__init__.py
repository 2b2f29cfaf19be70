"""How a machine should serve a model: simulated from what was measured on it."""
