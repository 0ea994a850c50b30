"""Files that exist whole or not at all: artifacts by their hash, atomic writes, SQLite."""
