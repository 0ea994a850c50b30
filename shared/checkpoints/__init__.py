"""Where experts lie in each checkpoint format: one file a format, one protocol (`base`)."""
