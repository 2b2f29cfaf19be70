"""What each measure saves in a month, alone and together, from what was measured of it."""
