"""Comity: train one model and answer one question together; each one's data stays at home."""

__version__ = "0.1.0"
