"""Whether to keep pictures that were drawn before, where, and how many of them."""
