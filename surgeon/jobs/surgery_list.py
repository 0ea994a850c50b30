"""A list of surgeries as a job holds it: read, checked against a base, named. Not here: doing it (`tools`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.kernel.records import Sha256, SurgeryPlan
from shared.wire.surgeries import SurgeryTable
from surgeon.kinds.base import ModelFacts
from surgeon.kinds.plan import Plan
from surgeon.kinds.registry import KINDS, read_list
from surgeon.kinds.sequence import passes, sequence_hash


@dataclass(frozen=True)
class SurgeryList:
    """What a list does to one base."""

    sha256: Sha256
    plan: SurgeryPlan | None
    """The one plan that it is, if it is one."""
    brought_by: Mapping[str, str]
    """Kind -> package and version, of the kinds that other packages bring."""

    @classmethod
    def of(cls, tables: Sequence[SurgeryTable], base: Path) -> "SurgeryList":
        """Read and check a list.

        Raises:
            ConfigurationError: an unknown kind, a wrong parameter, or a surgery that cannot be done to the base.
            DataError: the base is damaged.
        """
        surgeries = read_list([table.model_dump(mode="json") for table in tables], "surgery")
        steps = passes(surgeries, ModelFacts.of(base))
        only = steps[0] if len(steps) == 1 else None
        return cls(
            sequence_hash(steps), only.plan if isinstance(only, Plan) else None,
            brought_by(one.kind for one in surgeries),
        )  # fmt: skip


def brought_by(kinds: Iterable[str]) -> dict[str, str]:
    """Return kind -> package and version, of the kinds that other packages bring."""
    return {kind: origin for kind in sorted(set(kinds)) if (origin := KINDS.origin(kind)) is not None}
