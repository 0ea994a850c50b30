"""The steps of a campaign in order, and which of them are measurement windows.

Setup steps run once a campaign, configuration steps once a configuration, run steps once an attempt. A step inside a
window is never resumed: the attempt becomes `interrupted` and a new one starts.
"""

from typing import Literal

SetupStep = Literal["prepare", "observe", "hold_base", "release", "obtain_base"]
ConfigurationStep = Literal["plan", "apply", "validate"]
RunStep = Literal["deploy", "start_engine", "stabilise", "idle", "marker", "prefill", "decode", "score", "evaluate"]
Step = SetupStep | ConfigurationStep | RunStep

SETUP_STEPS: tuple[SetupStep, ...] = ("prepare", "observe", "obtain_base")
CONFIGURATION_STEPS: tuple[ConfigurationStep, ...] = ("plan", "apply", "validate")
RUN_STEPS: tuple[RunStep, ...] = (
    "deploy",
    "start_engine",
    "stabilise",
    "idle",
    "marker",
    "prefill",
    "decode",
    "score",
    "evaluate",
)
WINDOW_STEPS: frozenset[RunStep] = frozenset({"idle", "marker", "prefill", "decode", "score"})
