"""Hash-linked records."""
