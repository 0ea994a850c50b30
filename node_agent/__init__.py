"""The agent on each cluster node: facts, model store, engine processes, marker load."""
