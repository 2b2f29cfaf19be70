"""Running TorchServe and its models from the command line: what the make targets share."""
