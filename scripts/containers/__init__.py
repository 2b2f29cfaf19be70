"""What containers run: models fetched and verified, TorchServe in the foreground, probes."""
