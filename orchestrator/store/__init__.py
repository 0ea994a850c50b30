"""What the orchestrator remembers on disk: the journal."""
