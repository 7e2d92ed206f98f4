"""A linear classifier in NumPy, trained over several sites."""
