"""What a release must hold, and what makes it."""
