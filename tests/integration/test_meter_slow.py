"""The long proofs of the instrument, whole as the issue asks for them: `make test-slow`."""

import pytest

from tests.bench.bench_meter import PIECES


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("piece", PIECES)
def test_the_figures_of_the_instrument(piece: str) -> None:
    assert PIECES[piece](True)
