"""Results as files: the published schema, writing, reading, recomputing and validating them."""
