"""`epi journal check|copies|restore`: is the journal sound, which copies are there, and bring one back.

All work on files, on the orchestrator's machine; `restore` needs it stopped.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption, err, out
from orchestrator.settings import OrchestratorSettings
from shared.kernel.errors import DataError
from shared.kernel.settings import load_settings
from shared.screen import say_json

SETTINGS = Path("/etc/epi-factory/orchestrator.toml")
ConfigOption = Annotated[
    Path, typer.Option("--config", help="The orchestrator's settings; of `epi up`: OUT/.lab/config/orchestrator.toml.")
]

app = typer.Typer(no_args_is_help=True, help="The orchestrator's journal: check it, list its copies, bring one back.")


@app.command()
def check(config: ConfigOption = SETTINGS, as_json: JsonOption = False) -> None:
    """Look through every page, index and row, also while the orchestrator runs; exit code 1 when it is damaged."""
    from orchestrator.store.copies import damage_of
    from orchestrator.store.tables import CURE, NAME

    journal = _journal_of(config)
    with err.status("looking through the journal"):
        damage = damage_of(journal)
    found = {} if damage is not None else _size_of(journal)
    if as_json:
        say_json({"path": str(journal), "damage": damage, **found}, indent=2)
        raise typer.Exit(damage is not None)
    if damage is not None:
        raise DataError(f"{NAME} is damaged: {damage}", where=str(journal), hint=CURE)
    out.print(f"{journal}: sound, {found['campaigns']} campaigns, {found['entries']} entries")


@app.command()
def copies(config: ConfigOption = SETTINGS, as_json: JsonOption = False) -> None:
    """List the copies, newest first, and say of each whether it is sound."""
    from orchestrator.store.copies import JournalCopies, damage_of

    rows = []
    with err.status("looking through the copies"):
        for copy in JournalCopies(_journal_of(config)).newest_first():
            damage = damage_of(copy.path)
            found = {} if damage is not None else _size_of(copy.path)
            rows.append({"path": str(copy.path), "made": copy.when, "damage": damage, **found})
    if as_json:
        say_json(rows, indent=2)
        return
    for row in rows:
        inside = f"damaged: {row['damage']}" if row["damage"] else f"sound, {row['entries']} entries"
        out.print(f"{row['made']}  {row['path']}: {inside}")
    if not rows:
        out.print("no copy yet: the first is made when a campaign begins")


@app.command()
def restore(config: ConfigOption = SETTINGS, as_json: JsonOption = False) -> None:
    """Put the newest sound copy in the journal's place, with all that is newer; the orchestrator must be stopped.

    What is damaged is kept beside it. Newer than the copy are the sound rows of the damaged journal, the runs whose
    results are written, and those that are measured and wait for their evaluation. Campaigns that ran are paused.
    """
    from orchestrator.campaign.restoring import restore_journal

    settings = load_settings(OrchestratorSettings, config)
    with err.status("restoring the journal"):
        done = restore_journal(settings.state_dir, settings.results_dir)
    salvaged = done.salvaged
    if as_json:
        document = {
            "copy": str(done.copy.path), "made": done.copy.when,
            "aside": None if done.aside is None else str(done.aside),
            "entries": salvaged.entries, "attempts": salvaged.attempts, "campaigns": salvaged.campaigns,
            "imported": done.imported, "waiting": done.waiting, "notes": done.notes,
        }  # fmt: skip
        say_json(document, indent=2)
        return
    lines = [
        f"restored from the copy of {done.copy.when}: {done.copy.path}",
        f"the damaged journal is kept in {done.aside}" if done.aside is not None else "there was no journal any more",
        f"newer, from its sound rows: {salvaged.entries} entries, {salvaged.attempts} attempts changed,"
        f" {salvaged.campaigns} campaigns changed",
        f"newer, from the results: {', '.join(done.imported) or 'nothing'}",
        f"measured and to be evaluated: {', '.join(done.waiting) or 'nothing'}",
        *(f"note: {note}" for note in done.notes),
        "start the orchestrator, look at the campaigns, then `epi campaign resume`",
    ]
    for line in lines:
        out.print(line)


def _journal_of(config: Path) -> Path:
    return load_settings(OrchestratorSettings, config).state_dir / "journal.sqlite"


def _size_of(journal: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as db:
        counted = {f"{name}s" if name != "entry" else "entries": name for name in ("campaign", "entry")}
        return {key: int(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for key, name in counted.items()}
