"""The steps of a campaign in order, and which of them are measurement windows.

Setup steps run once a campaign, configuration steps once a configuration, run steps once an attempt; `answers` only
where the cluster answers all questions once, outside of the windows. A step inside a window is never resumed: the
attempt becomes `interrupted` and a new one starts.
"""

from collections.abc import Mapping
from typing import Final, Literal

from shared.kernel.records import NodeName

SetupStep = Literal["prepare", "observe", "pin_base", "release", "fetch_base"]
ConfigurationStep = Literal["plan", "search", "apply", "verify", "validate"]
RunStep = Literal[
    "deploy", "start_engine", "answers", "steady_state", "idle", "marker", "prefill", "decode", "score", "evaluate"
]
Step = SetupStep | ConfigurationStep | RunStep

FORMER_STEPS: Final[Mapping[str, Step]] = {
    "hold_base": "pin_base",
    "obtain_base": "fetch_base",
    "stabilise": "steady_state",
}
"""Name of a step in an earlier version -> its name now; specs are read under both."""

SETUP_STEPS: tuple[SetupStep, ...] = ("prepare", "observe", "fetch_base")
CONFIGURATION_STEPS: tuple[ConfigurationStep, ...] = ("plan", "apply", "validate")
RUN_STEPS: tuple[RunStep, ...] = (
    "deploy",
    "start_engine",
    "steady_state",
    "idle",
    "marker",
    "prefill",
    "decode",
    "score",
    "evaluate",
)
WINDOW_STEPS: frozenset[RunStep] = frozenset({"idle", "marker", "prefill", "decode", "score"})


def step_of_agent(step: Step, agent: NodeName) -> str:
    """Return how the journal names a step that an agent does, for example `fetch_base@node1`."""
    return f"{step}@{agent}"
