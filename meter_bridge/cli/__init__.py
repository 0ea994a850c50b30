"""`epi meter ...`: one file a command."""

import typer

from meter_bridge.cli.emulate import emulate

app = typer.Typer(no_args_is_help=True, help="The instrument: emulate, watch, calibrate, record, export.")


@app.callback()
def _group() -> None:
    """Keep `epi meter` a group however many commands it has."""


app.command()(emulate)
