"""What each engine is and can do, one file an engine: all that is known of it without running it."""
