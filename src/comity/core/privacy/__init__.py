"""Clip, noise, plan, ledger arithmetic."""
