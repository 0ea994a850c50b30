"""Proof that a checkpoint is what its base and its plan make of it."""
