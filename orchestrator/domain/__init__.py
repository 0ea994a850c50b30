"""Pure rules and mathematics: no input or output here."""
