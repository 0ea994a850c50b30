"""Searches for the experts to keep, one module a search (`naee`, `eep`, `eep_merge`), and what they share."""
