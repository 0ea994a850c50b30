"""Commands of `epi` that the orchestrator brings."""
