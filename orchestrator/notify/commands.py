"""The bot's commands, apart from any messenger: words in, one text out."""

import time

from orchestrator.campaign.service import CampaignService
from orchestrator.campaign.spec_library import SpecLibrary
from orchestrator.domain.campaign.run_reference import RunReference
from orchestrator.domain.campaign.schedule import runs_total
from orchestrator.store.records import Campaign, RunFigures
from shared.kernel.errors import ConfigurationError

HELP = """EPI Factory
/campaigns - all campaigns
/run SPEC - start a campaign from a named spec
/status [ID] - where a campaign is (default: the newest)
/pause [ID], /resume [ID], /cancel [ID] - obeyed after the present run
/summary [ID] - EPI of each measured configuration"""


async def answer(service: CampaignService, library: SpecLibrary, command: str, words: list[str]) -> str:
    """Do a command and return what to say.

    Raises:
        EpiError: what was asked cannot be done; the message is for the user.
    """
    if command in ("start", "help"):
        return HELP
    if command == "campaigns":
        found = await service.journal.campaigns(limit=10)
        return "\n".join(f"{one.id}: {one.state}" for one in found) or "no campaign yet; /run SPEC starts one"
    if command == "run":
        if len(words) != 1:
            raise ConfigurationError("say which spec", hint=f"/run SPEC; known: {', '.join(library.names()) or 'none'}")
        spec = library.load(words[0], f"{words[0]}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        await service.create(spec)
        return f"{spec.id} started: {runs_total(spec)} runs"
    campaign = await _pick(service, words)
    name = campaign.spec.id
    if command == "pause":
        await service.pause(name)
        return f"{name} will pause after the present run"
    if command == "resume":
        await service.resume(name)
        return f"{name} goes on"
    if command == "cancel":
        await service.cancel(name)
        return f"{name} will end after the present run; what is measured is kept"
    if command == "summary":
        return await _summary(service, campaign)
    return await _status(service, campaign)


async def _pick(service: CampaignService, words: list[str]) -> Campaign:
    if words:
        return await service.journal.campaign(words[0])
    found = await service.journal.campaigns(limit=1)
    if not found:
        raise ConfigurationError("there is no campaign yet", hint="/run SPEC starts one")
    return await service.journal.campaign(found[0].id)


async def _status(service: CampaignService, campaign: Campaign) -> str:
    name = campaign.spec.id
    done = (await service.journal.runs_done()).get(name, 0)
    lines = [f"{name}: {campaign.state}, {done} of {runs_total(campaign.spec)} runs done"]
    doing, eta_s = service.doing(name)
    if doing is not None:
        lines.append(f"now: {doing.run or 'setup'}: {doing.step}")
    if eta_s is not None:
        lines.append(f"left: {eta_s / 60:.0f} min")
    if campaign.reason:
        lines.append(campaign.reason)
    return "\n".join(lines)


async def _summary(service: CampaignService, campaign: Campaign) -> str:
    measured: dict[str, list[float]] = {}
    for entry in await service.journal.entries(limit=1_000_000, campaign_id=campaign.spec.id):
        if entry.kind == "result" and entry.step == "evaluate":
            epi = RunFigures.model_validate(entry.payload).epi
            if epi is not None:
                measured.setdefault(RunReference.parse(entry.run).configuration, []).append(epi)
    if not measured:
        return f"{campaign.spec.id}: nothing measured yet"
    lines = [f"{name}: {sorted(values)[len(values) // 2]:.4g} (n = {len(values)})" for name, values in measured.items()]
    return "\n".join([f"{campaign.spec.id}: median EPI, J/(token*accuracy), lower is better", *lines])
