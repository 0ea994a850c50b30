"""From a configuration to the plan that its model is cut by: rankings, searches, merge phases, plans that are given.

Not here: base models and statistics of the whole campaign, cutting and checking (`preparation`).
"""

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.domain.campaign.cells import experts_to_drop
from orchestrator.domain.campaign.surgeries import (
    Drop,
    GivenPlan,
    MergeExperts,
    PruneExperts,
    SearchExperts,
    VariantSpec,
)
from shared.kernel.errors import BugError, ConfigurationError
from shared.kernel.records import Configuration, Sha256, SurgeryPlan
from shared.wire.pruning import PruningOptions
from shared.wire.surgeon_jobs import (
    ObserveParams,
    ObserveResult,
    PlanOptions,
    PlanParams,
    PlanResult,
    SearchParams,
    SearchResult,
)


class PlanMaker:
    """Makes the plans of one campaign's configurations from one base model and its statistics."""

    def __init__(self, context: CampaignContext, model_sha256: Sha256, statistics_sha256: Sha256) -> None:
        """`model_sha256` is the unquantised model that the statistics are of."""
        self._context = context
        self._model = model_sha256
        self._statistics = statistics_sha256

    async def plan(self, configuration: Configuration) -> PlanResult:
        """Return the plan of a configuration.

        Raises:
            ConfigurationError: an impossible plan, or a hash of a plan that nobody here has made.
            EpiError: the surgeon's error.
        """
        if configuration.variant is None:
            return await self._ranked(configuration, PlanOptions(
                method=configuration.method if configuration.depth else self._context.spec.method,
                depth=configuration.depth, group=configuration.group, layout=configuration.layout,
                experts_per_token=configuration.experts_per_token,
            ))  # fmt: skip
        variant = (self._context.spec.variants or {})[configuration.variant]
        made = await self._first(configuration, variant)
        for surgery in variant.surgeries[1:]:
            if not isinstance(surgery, MergeExperts):
                raise BugError(f"{surgery.kind} follows nothing", where=configuration.id)
            made = await self._merged(configuration, made, surgery)
        return _served_with(made.plan, configuration.experts_per_token)

    async def _first(self, configuration: Configuration, variant: VariantSpec) -> PlanResult:
        surgery = variant.surgeries[0]
        if isinstance(surgery, PruneExperts):
            return await self._ranked(configuration, PlanOptions(
                method=configuration.method, depth=self._depth(configuration, surgery.drop), keep=surgery.keep,
                group=surgery.layers, layout=variant.layout, experts_per_token=configuration.experts_per_token,
                **{name: getattr(surgery, name) for name in PruningOptions.model_fields},
            ))  # fmt: skip
        if isinstance(surgery, SearchExperts):
            return await self._searched(configuration, surgery)
        if isinstance(surgery, GivenPlan):
            plan = surgery.plan or await self._known_plan(configuration, surgery.sha256 or "")
            return PlanResult(plan=plan, plan_hash=plan.plan_hash())
        raise BugError(f"{surgery.kind} makes no plan", where=configuration.id)

    async def _ranked(self, configuration: Configuration, options: PlanOptions) -> PlanResult:
        params = PlanParams(
            **options.model_dump(), model_sha256=self._model, statistics_sha256=self._statistics
        )  # fmt: skip
        call = self._call("plan", params, self._context.spec.timeouts.unsized("plan"))
        return await self._context.caller.idempotent(configuration.id, "plan", call, PlanResult)

    async def _searched(self, configuration: Configuration, surgery: SearchExperts) -> PlanResult:
        catalogue = await self._context.lab.catalogue()
        info = catalogue.described_as(surgery.search)
        needs = info.needs if info is not None else ()
        statistics = await self._reservoir(surgery.reservoir) if "reservoir" in needs else None
        return await self._search(configuration.id, SearchParams(
            model_sha256=self._model, method=surgery.search, depth=self._depth(configuration, surgery.drop),
            questions=surgery.questions, parameters=surgery.parameters,
            statistics_sha256=self._statistics if "statistics" in needs else statistics,
        ))  # fmt: skip

    async def _merged(self, configuration: Configuration, pruned: PlanResult, surgery: MergeExperts) -> PlanResult:
        return await self._search(f"{configuration.id}.merge", SearchParams(
            model_sha256=self._model, method=surgery.search, plan=pruned.plan, questions=surgery.questions,
            parameters=surgery.parameters,
        ))  # fmt: skip

    async def _search(self, name: str, params: SearchParams) -> PlanResult:
        call = self._call("search", params, self._context.spec.timeouts.unsized("search"))
        found = await self._context.caller.idempotent(name, "search", call, SearchResult)
        return PlanResult(plan=found.plan, plan_hash=found.plan_hash)

    async def _reservoir(self, tokens: int) -> Sha256:
        """Return statistics that keep block inputs, which only NAEE needs; observed once for all its variants."""
        spec = self._context.spec
        params = ObserveParams(model_sha256=self._model, corpus=spec.corpus, reservoir=tokens)
        call = self._call("observe", params, spec.timeouts.unsized("observe"))
        found = await self._context.caller.idempotent(f"reservoir-{tokens}", "observe", call, ObserveResult)
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


def _served_with(plan: SurgeryPlan, experts_per_token: int | None) -> PlanResult:
    """Return the plan with the number of active experts that the configuration is served with."""
    served = SurgeryPlan.model_validate(plan.model_dump() | {"experts_per_token": experts_per_token})
    return PlanResult(plan=served, plan_hash=served.plan_hash())
