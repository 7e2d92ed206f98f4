"""Means over contributions."""
