"""One run: its records, alignment, energy, accuracy, EPI and validity."""
