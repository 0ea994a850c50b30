"""Inference engines behind one protocol, and the processes they run in."""
