"""Workers: they take jobs and have them drawn."""
