"""Training the demonstration pipeline."""
