"""SQLite and tantivy on disk."""
