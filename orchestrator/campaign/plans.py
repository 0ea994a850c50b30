"""From a configuration to the plan that its model is cut by: rankings, searches, merge phases, plans that are given.

Not here: base models and statistics of the whole campaign, cutting and checking (`preparation`).
"""

from collections.abc import Mapping

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.domain.campaign.cells import experts_to_drop
from orchestrator.domain.campaign.surgeries import (
    Drop,
    GivenPlan,
    MergeExperts,
    PruneExperts,
    SearchExperts,
    Surgery,
    layout_of,
)
from shared.kernel.errors import BugError, ConfigurationError
from shared.kernel.records import Configuration, Sha256, SurgeryPlan
from shared.wire.pruning import PruningOptions
from shared.wire.surgeon_catalogue import Need
from shared.wire.surgeon_jobs import (
    ObserveParams,
    ObserveResult,
    PlanOptions,
    PlanParams,
    PlanResult,
    SearchParams,
    SearchResult,
)

Needs = Mapping[str, tuple[Need, ...]]
"""Search -> what it must be given."""


async def needs_of_searches(context: CampaignContext) -> Needs:
    """Return what each search of the surgeon needs; nothing is asked where no variant searches."""
    variants = (context.spec.variants or {}).values()
    if not any(isinstance(one, SearchExperts | MergeExperts) for variant in variants for one in variant.surgeries):
        return {}
    return {info.name: info.needs for info in (await context.lab.catalogue()).described}


class PlanMaker:
    """Makes the plans of one campaign's configurations from one base model and its statistics."""

    def __init__(
        self, context: CampaignContext, model_sha256: Sha256, statistics_sha256: Sha256, needs: Needs, *,
        prefix: str = "",
    ) -> None:  # fmt: skip
        """`model_sha256` is the unquantised model that the statistics are of; `prefix` is of what only it has."""
        self._context = context
        self._model = model_sha256
        self._statistics = statistics_sha256
        self._needs = needs
        self._prefix = prefix

    async def plan(self, configuration: Configuration) -> PlanResult:
        """Return the plan of a configuration that is one.

        Raises:
            ConfigurationError: an impossible plan, or a hash of a plan that nobody here has made.
            EpiError: the surgeon's error.
        """
        if configuration.variant is None:
            return await self._ranked(configuration.id, PlanOptions(
                method=configuration.method if configuration.depth else self._context.spec.method,
                depth=configuration.depth, group=configuration.group, layout=configuration.layout,
                experts_per_token=configuration.experts_per_token,
            ))  # fmt: skip
        first, *rest = (self._context.spec.variants or {})[configuration.variant].surgeries
        made = await self.decided(configuration.id, configuration, first)
        for surgery in rest:
            made = await self.gone_on(f"{configuration.id}.merge", configuration, made, surgery)
        return served_with(made.plan, configuration.experts_per_token)

    async def decided(self, subject: str, configuration: Configuration, surgery: Surgery) -> PlanResult:
        """Return the plan of a surgery that decides; it is journaled for `subject`."""
        if isinstance(surgery, PruneExperts):
            return await self._ranked(subject, PlanOptions(
                method=surgery.method or self._context.spec.method,
                depth=self._depth(configuration, surgery.drop), keep=surgery.keep,
                group=surgery.layers, layout=layout_of(surgery), experts_per_token=configuration.experts_per_token,
                **{name: getattr(surgery, name) for name in PruningOptions.model_fields},
            ))  # fmt: skip
        if isinstance(surgery, SearchExperts):
            return await self._search(subject, surgery, self._depth(configuration, surgery.drop), None)
        if isinstance(surgery, GivenPlan):
            plan = surgery.plan or await self._known_plan(configuration, surgery.sha256 or "")
            return PlanResult(plan=plan, plan_hash=plan.plan_hash())
        raise BugError(f"{surgery.kind} makes no plan", where=configuration.id)

    async def gone_on(
        self, subject: str, configuration: Configuration, made: PlanResult, surgery: Surgery
    ) -> PlanResult:
        """Return the plan that a merge phase, or a search that goes on from a plan, makes of one."""
        if not isinstance(surgery, MergeExperts | SearchExperts):
            raise BugError(f"{surgery.kind} follows nothing", where=configuration.id)
        return await self._search(subject, surgery, None, made.plan)

    async def _ranked(self, subject: str, options: PlanOptions) -> PlanResult:
        params = PlanParams(
            **options.model_dump(), model_sha256=self._model, statistics_sha256=self._statistics
        )  # fmt: skip
        call = self._call("plan", params, self._context.spec.timeouts.unsized("plan"))
        return await self._context.caller.idempotent(subject, "plan", call, PlanResult)

    async def _search(
        self, subject: str, surgery: SearchExperts | MergeExperts, depth: int | None, plan: SurgeryPlan | None
    ) -> PlanResult:
        needs = self._needs.get(surgery.search, ())
        statistics = self._statistics if "statistics" in needs else None
        if "reservoir" in needs:
            statistics = await self._reservoir(surgery.reservoir)
        params = SearchParams(
            model_sha256=self._model, method=surgery.search, depth=depth, plan=plan, questions=surgery.questions,
            parameters=surgery.parameters, statistics_sha256=statistics,
        )  # fmt: skip
        call = self._call("search", params, self._context.spec.timeouts.unsized("search"))
        found = await self._context.caller.idempotent(subject, "search", call, SearchResult)
        return PlanResult(plan=found.plan, plan_hash=found.plan_hash)

    async def _reservoir(self, tokens: int) -> Sha256:
        """Return statistics that keep block inputs, which only NAEE needs; observed once for all its variants."""
        spec = self._context.spec
        params = ObserveParams(model_sha256=self._model, corpus=spec.corpus, reservoir=tokens)
        call = self._call("observe", params, spec.timeouts.unsized("observe"))
        found = await self._context.caller.idempotent(
            f"{self._prefix}reservoir-{tokens}", "observe", call, ObserveResult
        )
        return found.statistics_sha256

    async def _known_plan(self, configuration: Configuration, sha256: Sha256) -> SurgeryPlan:
        payload = await self._context.caller.result_with("plan_hash", sha256)
        if payload is None:
            raise ConfigurationError(
                "no campaign of this lab has made a plan of that hash", where=f"variants.{configuration.variant}.plan",
                hint="give the plan itself: plan = \"FILE\" in a spec file",
            )  # fmt: skip
        return PlanResult.model_validate({key: payload[key] for key in ("plan", "plan_hash")}).plan

    def _depth(self, configuration: Configuration, drop: Drop | None) -> int | None:
        if drop is None:
            return None
        return experts_to_drop(drop, self._context.spec.model_shape, f"variants.{configuration.variant}.drop")

    def _call(self, kind: str, params: PlanParams | SearchParams | ObserveParams, timeout_s: float) -> Call:
        return Call("surgeon", self._context.lab.surgeon, kind, params, timeout_s)


def served_with(plan: SurgeryPlan, experts_per_token: int | None) -> PlanResult:
    """Return the plan with the number of active experts that the configuration is served with."""
    served = SurgeryPlan.model_validate(plan.model_dump() | {"experts_per_token": experts_per_token})
    return PlanResult(plan=served, plan_hash=served.plan_hash())
