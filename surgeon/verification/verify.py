"""Prove that a checkpoint is what its base and its plan make of it: tensor by tensor, range by range.

Independent of the code that writes (`shared.checkpoints.surgery`): both files are parsed, every tensor of the result is
compared with the base's bytes it must hold, every other byte must be padding, every metadata entry must be the base's
or one that surgery is allowed to change. Only merged experts are not compared with bytes of the base: they are computed
again.
"""

from pathlib import Path

from shared.checkpoints.surgery import check_routers, format_of, router_sha256
from shared.kernel.records import SurgeryPlan
from surgeon.verification.comparison import Verification, require
from surgeon.verification.of_dllama import verify_dllama
from surgeon.verification.of_gguf import verify_gguf
from surgeon.verification.of_safetensors import verify_safetensors


def verify(base: Path, plan: SurgeryPlan, result: Path) -> Verification:
    """Compare `result` with what `plan` makes of `base`.

    Raises:
        DataError: they differ; the first difference is named.
        ConfigurationError: the plan does not fit the base.
    """
    kind = format_of(base)
    require(format_of(result) == kind, f"the result is not in the base's format {kind}", result)
    check_routers(plan, router_sha256(base), base)
    match kind:
        case "gguf":
            return verify_gguf(base, plan, result)
        case "dllama":
            return verify_dllama(base, plan, result)
        case "safetensors":
            return verify_safetensors(base, plan, result)
