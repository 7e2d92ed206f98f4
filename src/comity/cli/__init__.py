"""One file per command group, lazily imported."""
