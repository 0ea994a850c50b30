"""What everything that works for one campaign is given."""

from dataclasses import dataclass

from orchestrator.campaign.calls import Caller
from orchestrator.campaign.lab import Lab
from orchestrator.domain.campaign.spec import CampaignSpec
from shared.service.health import HealthRegistry


@dataclass(frozen=True)
class CampaignContext:
    """One campaign: its frozen spec, the lab it is measured in, and the journaled calls of the lab's agents.

    `health` is the orchestrator's, for what is wrong in the lab.
    """

    spec: CampaignSpec
    lab: Lab
    caller: Caller
    health: HealthRegistry
