"""Variants of any surgeries in order: decisions are made one after the other, each on what lies before it.

The result is a list in which nothing is left to decide, which the surgeon does to the base, and proves. Not here: a
decision itself (`plans`); variants that are one plan (`preparation`).
"""

from orchestrator.campaign.calls import Call
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.plans import Needs, PlanMaker, served_with
from orchestrator.domain.campaign.surgeries import AppliedSurgery, Decision, goes_on
from orchestrator.domain.campaign.variants import VariantSpec
from orchestrator.domain.run.records import SurgeriesDone
from shared.kernel.errors import BugError
from shared.kernel.records import Configuration, Sha256, SurgeryPlan
from shared.wire.node_jobs.artifacts import FetchParams
from shared.wire.surgeon_jobs import ObserveParams, ObserveResult, PlanResult
from shared.wire.surgeries import ApplyParams, ApplyResult, SurgeryTable, VerifyParams, VerifyResult

Tables = tuple[SurgeryTable, ...]


class ListMaker:
    """Decides and does the surgeries of one configuration."""

    def __init__(self, context: CampaignContext, configuration: Configuration, f16: FetchParams, needs: Needs) -> None:
        """`f16` is the unquantised model: decisions are made on it."""
        self._context = context
        self._configuration = configuration
        self._f16 = f16
        self._needs = needs

    async def decided(self, variant: VariantSpec, statistics_sha256: Sha256) -> Tables:
        """Return the surgeries with every decision made; `statistics_sha256` are those of the unquantised model.

        Raises:
            EpiError: the surgeon's error.
        """
        tables: list[SurgeryTable] = []
        maker = PlanMaker(self._context, self._f16.sha256, statistics_sha256, self._needs)
        plan: PlanResult | None = None
        for number, surgery in enumerate(variant.surgeries, start=1):
            subject = self._configuration.id if number == 1 else f"{self._configuration.id}.{number}"
            if isinstance(surgery, Decision) and goes_on(surgery):
                if plan is None:
                    raise BugError(f"{surgery.kind} follows no plan", where=self._configuration.id)
                plan = await maker.gone_on(subject, self._configuration, plan, surgery)
                continue
            if plan is not None:
                tables.append(_table_of(served_with(plan.plan, None).plan))
                plan = None
            if isinstance(surgery, Decision):
                if tables:
                    maker = await self._after(tuple(tables), number)
                plan = await maker.decided(subject, self._configuration, surgery)
            elif isinstance(surgery, AppliedSurgery):
                tables.append(SurgeryTable.model_validate(surgery.model_dump(mode="json")))
        k = self._configuration.experts_per_token
        if plan is not None:
            tables.append(_table_of(served_with(plan.plan, k).plan))
        elif k is not None:
            tables.append(SurgeryTable.model_validate({"kind": "experts_per_token", "k": k}))
        return tuple(tables)

    async def _after(self, tables: Tables, number: int) -> PlanMaker:
        """Do what comes before a decision to the unquantised model, and observe what comes of it."""
        subject = f"{self._configuration.id}.{number}.before"
        made, spec = await self.applied(subject, tables, self._f16), self._context.spec
        observe = ObserveParams(model_sha256=made.sha256, corpus=spec.corpus)
        call = Call("surgeon", self._context.lab.surgeon, "observe", observe, spec.timeouts.unsized("observe"))
        seen = await self._context.caller.idempotent(subject, "observe", call, ObserveResult)
        return PlanMaker(self._context, made.sha256, seen.statistics_sha256, self._needs, prefix=f"{subject}.")

    async def applied(self, subject: str, tables: Tables, base: FetchParams) -> ApplyResult:
        """Return the file that the surgeries make of a base."""
        params = ApplyParams(base_sha256=base.sha256, surgeries=tables)
        timeout_s = self._context.spec.timeouts.rewrite("apply", base.size_bytes * len(tables))
        call = Call("surgeon", self._context.lab.surgeon, "apply", params, timeout_s)
        return await self._context.caller.idempotent(subject, "apply", call, ApplyResult)

    async def proved(self, subject: str, tables: Tables, base: FetchParams, made: ApplyResult) -> SurgeriesDone:
        """Let the surgeon prove a file, and return what was done."""
        params = VerifyParams(base_sha256=base.sha256, surgeries=tables, sha256=made.sha256)
        timeout_s = self._context.spec.timeouts.rewrite("verify", 2 * base.size_bytes * len(tables))
        call = Call("surgeon", self._context.lab.surgeon, "verify", params, timeout_s)
        proof = await self._context.caller.idempotent(subject, "verify", call, VerifyResult)
        return SurgeriesDone(
            surgeries=tables, sha256=proof.plan_hash, brought_by=made.brought_by, proved_bytes=proof.n_bytes
        )


def _table_of(plan: SurgeryPlan) -> SurgeryTable:
    return SurgeryTable.model_validate({"kind": "plan", "plan": plan.model_dump(mode="json")})
