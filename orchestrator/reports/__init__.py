"""Result files, tables, figures and reports of a campaign, made from what `orchestrator.domain` calculates."""

from orchestrator.reports.result_files import read_run, write_campaign, write_run
from orchestrator.reports.summary import write_summary

__all__ = ["read_run", "write_campaign", "write_run", "write_summary"]
