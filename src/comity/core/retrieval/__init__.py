"""Text, chunks, fusion, term statistics."""
