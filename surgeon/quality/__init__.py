"""Is the model still a language model? The quality gate before deployment."""
