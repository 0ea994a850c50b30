"""How artifacts reach this node."""
