"""Rounds that move arrays and train nothing."""
