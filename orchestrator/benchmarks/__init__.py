"""Benchmarks through lm-eval."""
