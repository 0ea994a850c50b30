"""The embedded demo patient: a small trained MoE model, its tasks and its recipe."""
