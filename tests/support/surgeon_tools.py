"""The surgeon's tools on a small model: a store and a cache of their own, and variants cut by plans."""

from pathlib import Path

from shared.kernel.records import SurgeryPlan
from shared.wire.surgeries import ApplyParams, ApplyResult
from surgeon.jobs import Tools
from surgeon.settings import SurgeonSettings

LAYERS, EXPERTS = 4, 12
"""Of the model that the plans are for."""


def tools_of(state: Path, **limits: int) -> Tools:
    return Tools.of(
        SurgeonSettings.model_validate({"name": "s", "port": 1, "state_dir": state, "models": {}, **limits})
    )


async def adopted(tools: Tools, file: Path) -> str:
    scratch = tools.store.scratch()
    scratch.write_bytes(file.read_bytes())
    return (await tools.adopt(scratch)).sha256


def drop(first: int, count: int) -> SurgeryPlan:
    kept = tuple(expert for expert in range(EXPERTS) if not first <= expert < first + count)
    return SurgeryPlan(n_experts=EXPERTS, kept=(kept,) * LAYERS)


async def cut(tools: Tools, base: str, plan: SurgeryPlan) -> ApplyResult:
    return await tools.cut(ApplyParams(base_sha256=base, plan=plan), lambda _fraction, _message: None)
