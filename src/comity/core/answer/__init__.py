"""Extract, cite, ground."""
