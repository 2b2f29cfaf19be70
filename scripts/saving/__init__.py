"""What the planners' programs share: their inputs, plots, and checks on a real TorchServe."""
