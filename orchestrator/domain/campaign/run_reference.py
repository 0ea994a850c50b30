"""Which run of a campaign: a configuration and a repetition, written `drop3_late/rep-2`.

So it stands in the journal, in result files, in job keys and in the live feed. Not here: attempts at a run.
"""

import re
from typing import ClassVar

from pydantic import Field

from shared.kernel.records import ConfigurationId
from shared.kernel.text_ids import TextId

RUN_TEXT = r"[a-z0-9][a-z0-9_.-]{0,63}/rep-[1-9][0-9]{0,5}"
"""A run's text as a regular expression, for ids that hold one."""


class RunReference(TextId):
    """One run of a campaign."""

    pattern: ClassVar = re.compile(r"(?P<configuration>[a-z0-9][a-z0-9_.-]{0,63})/rep-(?P<repetition>[1-9][0-9]{0,5})")
    example: ClassVar = "drop3_late/rep-2"

    configuration: ConfigurationId
    repetition: int = Field(ge=1, le=999_999)

    def format(self) -> str:
        """Return the run's text."""
        return f"{self.configuration}/rep-{self.repetition}"
