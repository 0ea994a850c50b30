"""JSON that carries its hash: a flipped bit is found wherever it falls."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.files.checked_json import KEY, dump_checked, parse_checked
from shared.kernel.errors import DataError
from shared.kernel.records import QuestionResult, TokenLedger

WRITTEN = QuestionResult(
    task="one", question_id="ü", target=0, choice=0, correct=True, metric="acc", log_likelihoods=(-0.1, -2.5e-7),
    ledger=TokenLedger(scored=4),
)  # fmt: skip
TEXT = dump_checked(WRITTEN).encode()


def test_it_is_json_and_reads_as_it_was_also_without_a_hash() -> None:
    assert parse_checked(QuestionResult, TEXT) == WRITTEN
    values = json.loads(TEXT)
    del values[KEY]
    assert parse_checked(QuestionResult, json.dumps(values).encode()) == WRITTEN


@given(st.integers(0, 8 * len(TEXT) - 1))
def test_one_flipped_bit_is_found_or_changes_nothing(place: int) -> None:
    body = bytearray(TEXT)
    body[place // 8] ^= 1 << place % 8
    try:
        assert parse_checked(QuestionResult, bytes(body)) == WRITTEN
    except DataError:
        return


def test_the_error_says_where() -> None:
    with pytest.raises(DataError, match="not as it was written") as refused:
        parse_checked(QuestionResult, TEXT.replace(b"-0.1", b"-0.3"), where="a file")
    assert refused.value.where == "a file"
