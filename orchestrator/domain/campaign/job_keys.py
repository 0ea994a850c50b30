"""Ids of the jobs that a campaign asks of agents: whose, for which step, on which agent, which of several.

A job's id is made from these parts alone, so that asking again after a restart is asking for the same job. Not here:
jobs that belong to no campaign (`shared.wire.job_keys`).
"""

import re
from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from orchestrator.domain.campaign.run_reference import RUN_TEXT, RunReference
from shared.kernel.records import CampaignId, ConfigurationId, NodeName
from shared.kernel.text_ids import TextId

Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""A step or a kind of job; of any version, since agents remember the jobs of earlier ones."""

_CAMPAIGN = r"(?P<campaign>[a-z0-9][a-z0-9_.-]{0,63})"
_STEP_AND_AGENT = r"(?P<step>[a-z][a-z0-9_]{0,31})/(?P<agent>[a-z0-9][a-z0-9-]{0,31})"
_SETUP = "setup"
_MOST = 999_999


class AttemptJob(TextId):
    """A job of one attempt at a run; `part` numbers several of one kind in one step."""

    pattern: ClassVar = re.compile(
        rf"{_CAMPAIGN}/(?P<run>{RUN_TEXT})/attempt-(?P<attempt>[1-9][0-9]{{0,5}})/{_STEP_AND_AGENT}"
        r"/(?P<kind>[a-z][a-z0-9_]{0,31})(-(?P<part>[2-9]|[1-9][0-9]{1,5}))?"
    )
    example: ClassVar = "paper/drop3_late/rep-2/attempt-1/decode/node1/decode-2"

    campaign: CampaignId
    run: RunReference
    attempt: int = Field(ge=1, le=_MOST)
    step: Word
    agent: NodeName
    kind: Word
    part: int = Field(default=1, ge=1, le=_MOST)

    def format(self) -> str:
        """Return the job's id."""
        part = f"-{self.part}" if self.part > 1 else ""
        return f"{self.campaign}/{self.run}/attempt-{self.attempt}/{self.step}/{self.agent}/{self.kind}{part}"


class SetupJob(TextId):
    """A job that is done once a campaign or once a `subject` of it: a configuration, a quantisation, a file's form."""

    pattern: ClassVar = re.compile(
        rf"{_CAMPAIGN}/({_SETUP}|(?P<subject>[a-z0-9][a-z0-9_.-]{{0,79}}))/{_STEP_AND_AGENT}"
        r"/try-(?P<tried>[1-9][0-9]{0,5})"
    )
    example: ClassVar = "paper/drop3_late/plan/surgeon/try-1"

    campaign: CampaignId
    subject: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9_.-]{0,79})?$")] = Field(
        default="", description="empty: the campaign itself"
    )
    step: Word
    agent: NodeName
    tried: int = Field(ge=1, le=_MOST)

    @model_validator(mode="after")
    def _subject_is_not_the_campaign(self) -> Self:
        if self.subject == _SETUP:
            raise ValueError(f"nothing of a campaign is called {_SETUP}")
        return self

    def format(self) -> str:
        """Return the job's id."""
        return f"{self.campaign}/{self.subject or _SETUP}/{self.step}/{self.agent}/try-{self.tried}"


class AnswerJob(TextId):
    """A job of a scorer: what it costs to lose is asked again, so the time makes each another one."""

    pattern: ClassVar = re.compile(
        rf"{_CAMPAIGN}/(?P<configuration>[a-z0-9][a-z0-9_.-]{{0,79}})/answers/(?P<agent>[a-z0-9][a-z0-9-]{{0,31}})"
        r"/(?P<kind>[a-z][a-z0-9_]{0,31})/(?P<utc_ns>[1-9][0-9]{0,18})"
    )
    example: ClassVar = "paper/drop3_late/answers/scorer1/score/1796059605866186998"

    campaign: CampaignId
    configuration: ConfigurationId
    agent: NodeName
    kind: Word
    utc_ns: int = Field(ge=1, lt=10**19)

    def format(self) -> str:
        """Return the job's id."""
        return f"{self.campaign}/{self.configuration}/answers/{self.agent}/{self.kind}/{self.utc_ns}"


class FreshJob(TextId):
    """A setup job whose answer is of now: it is asked for anew at every start, so the time makes it another one."""

    pattern: ClassVar = re.compile(rf"{_CAMPAIGN}/{_SETUP}/{_STEP_AND_AGENT}/(?P<utc_ns>[1-9][0-9]{{0,18}})")
    example: ClassVar = "paper/setup/pin_base/node1/1796059605866186998"

    campaign: CampaignId
    step: Word
    agent: NodeName
    utc_ns: int = Field(ge=1, lt=10**19)

    def format(self) -> str:
        """Return the job's id."""
        return f"{self.campaign}/{_SETUP}/{self.step}/{self.agent}/{self.utc_ns}"
