"""The spot drill: processes in the role of pods, taken away at random while they draw."""
