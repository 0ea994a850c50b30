"""One lab for all integration tests that only need a running one."""

from collections.abc import Iterator

import pytest

from tests.support.lab import TestLab, running_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[TestLab]:
    with running_lab() as running:
        yield running
