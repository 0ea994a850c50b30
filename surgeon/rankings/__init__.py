"""Ways to say how much an expert matters: one file a method (`registry` finds them)."""
