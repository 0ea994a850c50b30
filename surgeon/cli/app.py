"""All commands of `epi surgery` under one roof."""

import typer

from surgeon.cli import files, fit, planning, search

app = typer.Typer(
    help="Observe experts, rank them, cut them out, and prove what was done.",
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(files.app)
app.add_typer(planning.app)
app.add_typer(fit.app)
app.add_typer(search.app, name="search")
