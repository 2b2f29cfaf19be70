"""What the project's figures are, measured on the machine at hand."""
