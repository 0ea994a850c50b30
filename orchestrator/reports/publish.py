"""Everything that people read of a campaign, made from its files: summary, report and figures."""

from pathlib import Path

from orchestrator.reports.report import write_report
from orchestrator.reports.summary import write_summary


def publish(campaign_dir: Path) -> None:
    """Write summary, report and figures from the files that are there; costs seconds, so never inside a window.

    Raises:
        DataError: a result file is missing or damaged.
    """
    write_summary(campaign_dir)
    write_report(campaign_dir)
