"""`epi meter ...`: one file a command."""

import typer

from meter_bridge.cli.calibrate import calibrate
from meter_bridge.cli.emulate import emulate
from meter_bridge.cli.export import export
from meter_bridge.cli.fault import fault
from meter_bridge.cli.find_channel import find_channel
from meter_bridge.cli.maintain import compact, prune
from meter_bridge.cli.record import record, replay
from meter_bridge.cli.status import status
from meter_bridge.cli.watch import watch

app = typer.Typer(no_args_is_help=True, help="The instrument: emulate, watch, calibrate, record, export.")
for command in (status, watch, export, calibrate, find_channel, record, replay, prune, compact, emulate, fault):
    app.command()(command)
app.command("identify", hidden=True)(find_channel)  # its former name
