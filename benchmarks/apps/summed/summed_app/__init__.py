"""Rounds of a strategy that secure sums allow."""
