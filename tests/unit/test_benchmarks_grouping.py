"""Grouping by shared prefix: nothing is lost, nothing is changed, and the shots are shared."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.benchmarks.grouping import Question, group_by_prefix, shared_prefix

TEXT = st.text(alphabet="ab \n", max_size=12)
QUESTIONS = st.lists(
    st.builds(
        Question,
        task=st.sampled_from(["t1", "t2"]),
        subject=st.sampled_from(["", "s1", "s2"]),
        context=st.tuples(st.sampled_from(["", "shots A\n\n", "shots B\n\n"]), TEXT).map("".join),
        continuations=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    ),
    max_size=12,
)


@given(QUESTIONS)
def test_every_question_is_found_again_unchanged(questions: list[Question]) -> None:
    grouped = group_by_prefix(questions)
    assert len(grouped.places) == len(set(grouped.places)) == len(questions)
    assert sum(len(group.items) for group in grouped.params.groups) == len(questions)
    for question, (group, item) in zip(questions, grouped.places, strict=True):
        sent = grouped.params.groups[group]
        assert sent.prefix + sent.items[item].suffix == question.context
        assert sent.items[item].continuations == question.continuations


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_prefix_is_cut_where_tokens_cannot_change(contexts: list[str]) -> None:
    prefix = shared_prefix(contexts)
    assert all(text.startswith(prefix) for text in contexts)
    if prefix:
        assert prefix.endswith("\n")
        assert all(not text[len(prefix)].isspace() for text in contexts)


def test_shots_are_shared_but_the_question_is_not() -> None:
    shots = "Question: 1+1?\nAnswer: 2\n\nQuestion: 2+2?\nAnswer: 4\n\n"
    contexts = [f"{shots}Question: {n}+{n}?\nAnswer:" for n in (3, 4, 5)]
    assert shared_prefix(contexts) == shots


def test_no_line_break_means_no_prefix() -> None:
    assert shared_prefix(["Question: a?", "Question: b?"]) == ""


def test_subjects_are_split_only_where_that_saves_work() -> None:
    same = [Question("t", f"s{i % 3}", f"common shots, long\n\nq{i}\nA:", ("x",)) for i in range(9)]
    assert len(group_by_prefix(same).params.groups) == 1
    own = [Question("t", f"s{i % 3}", f"intro\n\nshots of s{i % 3}, long\n\nq{i}\nA:", ("x",)) for i in range(9)]
    groups = group_by_prefix(own).params.groups
    assert [len(group.items) for group in groups] == [3, 3, 3]
    assert all("shots of" in group.prefix for group in groups)


def test_tasks_are_never_mixed() -> None:
    questions = [Question(task, "", "same shots\n\nq\nA:", ("x",)) for task in ("t1", "t2", "t1")]
    assert [len(group.items) for group in group_by_prefix(questions).params.groups] == [2, 1]
