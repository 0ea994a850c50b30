"""Where the accuracy was answered, where that was not the score window, and whether the cluster answers alike."""

from orchestrator.domain.run.carried import CarriedAccuracy
from orchestrator.reports.rendering import number
from orchestrator.reports.tables import Table
from orchestrator.results.read_model import CampaignResults
from shared.kernel.records import Configuration

_NOTE = {
    "once": "All questions were answered once on the cluster, outside of the windows.",
    "scorers": "All questions were answered once by machines that no meter watches.",
}
_CARRIED = (
    " The cluster was asked a sample in the score window of the first repetition: alike is the share of equal choices"
    " with its 95 % interval (Clopper-Pearson), difference the cluster's composite accuracy minus that of the set, u"
    " what carrying the accuracy over adds to its standard uncertainty. Sets are the first characters of the hash of"
    " everything that answers depend on."
)


def answers_table(data: CampaignResults) -> Table | None:
    """Return who answered for each configuration; None where each score window asked all questions."""
    where = data.campaign.protocol.accuracy_where
    if where == "cluster":
        return None
    return Table(
        title="Where accuracy was answered",
        head=(
            "configuration", "answered by", "engine", "set", "questions", "cluster asked", "alike", "difference", "u",
        ),
        rows=tuple(_row(data, item) for item in data.configurations if item.id in data.runs),
        note=_NOTE[where] + _CARRIED,
    )  # fmt: skip


def _row(data: CampaignResults, item: Configuration) -> tuple[str, ...]:
    source = next((run.answers for run in data.inputs[item.id] if run.answers is not None), None)
    if source is None:
        return (item.id, "nobody yet", "-", "-", "0", *_carried(None))
    served = source.served
    gpu = f", {served.gpu_layers} layers on its GPU" if served.gpu_layers else ""
    questions = max(len(one.questions) for one in data.answers[item.id])
    carried = next((run.carried for run in data.runs[item.id] if run.carried is not None), None)
    return (
        item.id, ", ".join(served.nodes), f"{served.engine_build}{gpu}", source.answer_set_sha256[:12],
        str(questions), *_carried(carried),
    )  # fmt: skip


def _carried(carried: CarriedAccuracy | None) -> tuple[str, str, str, str]:
    if carried is None:
        return ("not asked", "-", "-", "-")
    low, high = carried.agreement_interval
    return (
        str(carried.asked), f"{carried.agreed / carried.asked:.1%} [{low:.1%}, {high:.1%}]",
        f"{carried.difference:+.3f}", number(carried.standard_uncertainty),
    )  # fmt: skip
