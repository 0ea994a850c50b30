"""What a rule says of a measurement, and the verdict over several. Not here: the rules."""

from collections.abc import Iterable
from typing import Literal

from shared.kernel.records import Record

Verdict = Literal["PASS", "FLAG", "FAIL"]
_ORDER: dict[Verdict, int] = {"PASS": 0, "FLAG": 1, "FAIL": 2}


class Finding(Record):
    """What one rule says; `where` names the window, node or run."""

    rule: str
    verdict: Verdict
    reason: str
    where: str = ""


class Validity(Record):
    """The worst verdict and every finding that is not PASS."""

    verdict: Verdict = "PASS"
    findings: tuple[Finding, ...] = ()


def judge(findings: Iterable[Finding]) -> Validity:
    """Return the worst verdict of the findings; PASS findings are not kept."""
    kept = tuple(finding for finding in findings if finding.verdict != "PASS")
    verdict: Verdict = max((finding.verdict for finding in kept), key=_ORDER.__getitem__, default="PASS")
    return Validity(verdict=verdict, findings=kept)


def fail(rule: str, reason: str, where: str) -> Finding:
    """Return a finding that bars the measurement."""
    return Finding(rule=rule, verdict="FAIL", reason=reason, where=where)


def flag(rule: str, reason: str, where: str) -> Finding:
    """Return a finding that is printed beside the measurement."""
    return Finding(rule=rule, verdict="FLAG", reason=reason, where=where)
