"""`epi surgery ...`: the surgeon's work at the command line; the daemon offers the same as jobs."""

from surgeon.cli.app import app

__all__ = ["app"]
