"""A bit flips in the write-ahead log that a killed process left: no committed transaction is left out in silence."""

import random
import shutil
from pathlib import Path

import pytest

from orchestrator.store.journal import open_journal
from shared.files.wal import lost_in_log
from shared.kernel.errors import DataError
from tests.unit.test_store_journal import spec

ENTRIES = 60


async def killed(folder: Path) -> Path:
    """Return a journal as a kill leaves it: what was committed last is in the log alone."""
    folder.mkdir()
    path, left = folder / "journal.sqlite", folder / "left"
    async with open_journal(path) as journal:
        await journal.create(spec())
    async with open_journal(path) as journal:
        for number in range(ENTRIES):
            await journal.append("camp", kind="result", step="plan", payload={"number": number})
        left.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", left)
    return left / path.name


async def numbers(path: Path) -> list[int]:
    async with open_journal(path) as journal:
        entries = await journal.entries(0, 1000)
    return [entry.payload["number"] for entry in entries if entry.kind == "result"]


async def test_what_a_kill_leaves_is_read_whole(tmp_path: Path) -> None:
    path = await killed(tmp_path / "lab")
    assert lost_in_log(path) is None
    assert await numbers(path) == list(range(ENTRIES))


async def test_a_torn_last_transaction_is_a_power_cut(tmp_path: Path) -> None:
    path = await killed(tmp_path / "lab")
    log = path.with_name(f"{path.name}-wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 2000)
    assert await numbers(path) == list(range(ENTRIES - 1))


@pytest.mark.parametrize(("flips", "seed"), [(24, 1), pytest.param(1500, 2, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
async def test_a_flipped_bit_loses_at_most_what_a_power_cut_may(tmp_path: Path, flips: int, seed: int) -> None:
    sound = await killed(tmp_path / "lab")
    size = sound.with_name(f"{sound.name}-wal").stat().st_size
    chance = random.Random(seed)
    found = 0
    for number in range(flips):
        path = tmp_path / str(number) / sound.name
        path.parent.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{sound}{end}", path.parent)
        at, bit = chance.randrange(32 if number % 10 == 0 else size), chance.randrange(8)
        with path.with_name(f"{path.name}-wal").open("r+b") as log:
            log.seek(at)
            body = log.read(1)[0] ^ 1 << bit
            log.seek(at)
            log.write(bytes([body]))
        try:
            told = await numbers(path)
        except DataError as error:
            found += 1
            assert (error.where, "epi journal restore" in error.hint) == (str(path), True), error
        else:
            assert told in (list(range(ENTRIES)), list(range(ENTRIES - 1))), f"bit {bit} of byte {at}: left out"
        shutil.rmtree(path.parent)
    print(f"log: {found} of {flips} flips found")
    assert found > flips // 2
