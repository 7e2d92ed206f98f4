"""Rule, decide, redact: deny by default."""
