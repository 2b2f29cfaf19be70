"""Which machines to rent, and how many, for a rate, a latency and a budget."""
