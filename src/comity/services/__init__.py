"""The use cases: gate, train, ask, search, ingest, enrol."""
