"""Which questions a result was asked: by their hash, so that two results can be compared.

Not here: where they lie and who trusts them (`orchestrator.benchmarks`).
"""

from typing import Literal

from pydantic import Field

from orchestrator.domain.campaign.protocol import TaskName
from shared.kernel.records import Record, Sha256

Trust = Literal["known", "first_use", "own"]
"""`known`: the questions are those that this version knows the hash of. `first_use`: nobody knows whether they are the
published ones, they are those that this lab used first. `own`: the task's own files, or nothing remembers."""


class QuestionSet(Record):
    """The questions of one benchmark task."""

    task: TaskName
    docs_sha256: Sha256 = Field(description="of all questions and shots that the task draws from, in any order")
    prompts_sha256: Sha256 = Field(description="of every prompt and option in the order asked")
    shots: int
    available: int
    asked: int
    trust: Trust = "own"
