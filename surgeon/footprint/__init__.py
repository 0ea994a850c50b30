"""What a model will take in memory on each node, calculated from headers before it exists."""
