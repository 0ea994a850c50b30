"""Ids of several parts: what is written is read back, garbage is refused with a sentence, no id is two things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.domain.campaign.job_keys import AnswerJob, AttemptJob, FreshJob, SetupJob
from orchestrator.domain.campaign.run_reference import RunReference
from shared.kernel.errors import DataError
from shared.kernel.records import Record
from shared.kernel.text_ids import TextId
from shared.wire.job_keys import BenchmarkJob, FindNodeJob, ScrubJob
from shared.wire.protocol import JobId

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,63}", fullmatch=True)
NODES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
NUMBERS = st.integers(1, 999_999)
TIMES = st.integers(1, 10**19 - 1)
RUNS = st.builds(RunReference, configuration=NAMES, repetition=NUMBERS)
SUBJECTS = st.just("") | st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,79}", fullmatch=True).filter(lambda s: s != "setup")
JOBS = st.one_of(
    st.builds(AttemptJob, campaign=NAMES, run=RUNS, attempt=NUMBERS, step=WORDS, agent=NODES, kind=WORDS, part=NUMBERS),
    st.builds(SetupJob, campaign=NAMES, subject=SUBJECTS, step=WORDS, agent=NODES, tried=NUMBERS),
    st.builds(AnswerJob, campaign=NAMES, configuration=NAMES, agent=NODES, kind=WORDS, utc_ns=TIMES),
    st.builds(FreshJob, campaign=NAMES, step=WORDS, agent=NODES, utc_ns=TIMES),
    st.builds(FindNodeJob, node=NODES, by=st.sampled_from(["led", "channel"]), utc_ns=TIMES),
    st.builds(BenchmarkJob, utc_ns=TIMES, kind=WORDS, number=st.integers(1, 10**9 - 1)),
    st.builds(ScrubJob, agent=NODES, utc_ns=TIMES),
)
KINDS: tuple[type[TextId], ...] = (
    RunReference, AttemptJob, SetupJob, AnswerJob, FreshJob, FindNodeJob, BenchmarkJob, ScrubJob
)  # fmt: skip


class Holder(Record):
    """A record with a run in it, as the journal and the API have them."""

    run: RunReference


@given(RUNS)
def test_a_run_is_read_as_it_was_written(run: RunReference) -> None:
    assert RunReference.parse(run.format()) == run and str(run) == run.format()
    assert Holder.model_validate_json(Holder(run=run).model_dump_json()) == Holder(run=run)


@given(JOBS)
def test_a_job_is_read_as_it_was_written_and_is_an_id_that_agents_take(job: TextId) -> None:
    text = job.format()
    assert type(job).parse(text) == job
    assert TypeAdapter(JobId).validate_python(text) == text


@given(JOBS | RUNS)
def test_no_text_is_two_kinds_of_id(one: TextId) -> None:
    def reads(kind: type[TextId]) -> bool:
        try:
            kind.parse(one.format())
        except DataError:
            return False
        return True

    # A campaign may be called `find_node` or `benchmark`; the number of parts tells its jobs from a person's.
    assert [kind for kind in KINDS if reads(kind)] == [type(one)]


@given(st.sampled_from(KINDS), st.text() | JOBS.map(str) | RUNS.map(str), st.text(max_size=3))
def test_what_is_read_is_written_the_same_and_all_else_is_refused_with_a_sentence(
    kind: type[TextId], text: str, more: str
) -> None:
    for garbage in (text, text + more, text[1:], text.upper(), text.replace("-1", "-01")):
        try:
            read = kind.parse(garbage)
        except DataError as error:
            assert kind.example in error.message or ":" in error.message
            assert error.where.isprintable() and len(error.where) <= 10 * 120
        else:
            assert read.format() == garbage


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_is_one(kind: type[TextId]) -> None:
    assert kind.parse(kind.example).format() == kind.example


@pytest.mark.parametrize(
    "text",
    ["", "drop3_late", "drop3_late/rep-0", "drop3_late/rep-02", "drop3_late/rep-2/", "a/b/rep-1", "/rep-1", "../rep-1",
     "Drop/rep-1", "drop3_late/rep-2\n", "drop3_late/rep-\u0662"],
)  # fmt: skip
def test_no_run(text: str) -> None:
    with pytest.raises(DataError, match="drop3_late/rep-2"):
        RunReference.parse(text)
    with pytest.raises(ValidationError, match="drop3_late/rep-2"):
        Holder.model_validate({"run": text})


def test_jobs_have_the_ids_they_always_had() -> None:
    run = RunReference(configuration="baseline.n2", repetition=3)
    first = AttemptJob(campaign="paper", run=run, attempt=1, step="decode", agent="node1", kind="decode")
    assert first.format() == "paper/baseline.n2/rep-3/attempt-1/decode/node1/decode"
    assert first.model_copy(update={"part": 2}).format() == f"{first}-2"
    assert AttemptJob.parse("demo/baseline/rep-1/attempt-1/stabilise/node1/settle").step == "stabilise", "0.1.0's name"
    setup = SetupJob(campaign="paper", step="prepare", agent="surgeon", tried=2)
    assert setup.format() == "paper/setup/prepare/surgeon/try-2"
    assert SetupJob.parse("paper/drop3_late.m/apply/surgeon/try-1").subject == "drop3_late.m"


def test_an_id_of_parts_that_do_not_fit_is_refused_by_the_part_s_name() -> None:
    assert RunReference.of(configuration="baseline", repetition=2) == RunReference.parse("baseline/rep-2")
    for parts, name in (({"configuration": "A b", "repetition": 1}, "configuration"), ({"configuration": "a"}, "rep")):
        with pytest.raises(DataError, match=name):
            RunReference.of(**parts)
