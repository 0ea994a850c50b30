"""What everything here stands on: records, errors, clock, settings, slopes. Imports nothing of ours."""
