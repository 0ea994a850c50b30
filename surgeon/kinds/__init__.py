"""Kinds of surgery on a model file: one module a kind, with its parameters, check, application and proof."""
