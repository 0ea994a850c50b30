"""The trace database: records, one writer, readers, retention, recordings."""
