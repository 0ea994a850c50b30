"""The orchestrator's commands of `epi`."""
