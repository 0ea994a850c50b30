"""Searches for the experts to keep: by reconstruction loss (`naee`), by accuracy on a task (`eep`)."""
