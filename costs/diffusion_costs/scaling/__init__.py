"""How many machines, and when: policies on a virtual clock, and the cheapest as a manifest."""
