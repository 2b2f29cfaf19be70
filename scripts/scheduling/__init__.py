"""Schedules on a virtual clock: the engine's own policy and what others do, over any t(b)."""
