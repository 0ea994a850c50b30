"""`epi meter status`: is the meter alive, and how well does it speak?"""

import typer
from rich.table import Table

from meter_bridge.cli.remote import DEFAULT_URL, AsJson, CaFile, TokenFile, Url, bridge_at, with_bridge
from shared.kernel.clock import iso_utc
from shared.kernel.visible import visible_line
from shared.screen import Screen, say, say_json
from shared.wire.meter_api import Ambient, MeterStatus

_UNKNOWN_PPM = 1000.0


def status(
    url: Url = DEFAULT_URL, token_file: TokenFile = None, ca_file: CaFile = None, as_json: AsJson = False
) -> None:
    """Show the instrument, its counters and its problems; exit code 1 when there are problems."""
    found = with_bridge(bridge_at(url, token_file, ca_file), lambda bridge: bridge.status())
    if as_json:
        say_json(found.model_dump(mode="json"), indent=2)
    else:
        Screen().print(_table(found))
        for problem in found.problems:
            say(f"problem: {visible_line(problem)}", err=True)
    raise typer.Exit(1 if found.problems else 0)


def _room(ambient: Ambient | None) -> str:
    if ambient is None:
        return "n/a (the meter has no sensor)"
    celsius, percent = ambient.temperature_c, ambient.humidity_percent
    return ", ".join([
        "temperature n/a" if celsius is None else f"{celsius:.1f} C",
        "humidity n/a" if percent is None else f"{percent:.0f} % RH",
    ])  # fmt: skip


def _table(found: MeterStatus) -> Table:
    table = Table("what", "is", title=f"{found.instrument.name} ({found.instrument.kind})", show_header=False)
    instrument, clock = found.instrument, found.clock
    uncertainty = instrument.relative_uncertainty
    rows = {
        "connected": "yes" if found.connected else "no",
        "measures": instrument.measurement_point,
        "emulated": "yes" if instrument.emulated else "no",
        "firmware": instrument.firmware or "unknown",
        "calibration": instrument.calibration_id or "none",
        "calibrated": "unknown" if instrument.calibrated_utc_ns is None else iso_utc(instrument.calibrated_utc_ns)[:10],
        "room": _room(found.ambient),
        "uncertainty (1 sigma)": "unknown" if uncertainty is None else f"{uncertainty:.1%}",
        "nodes": ", ".join(found.nodes),
        "frames": str(found.frames),
        "gaps / duplicates": f"{found.gaps} / {found.duplicates}",
        "resets / malformed": f"{found.resets} / {found.malformed}",
        "reconnects": str(found.reconnects),
        "storing": "yes" if found.storing else "no",
    }
    if clock is not None:
        known = clock.drift_uncertainty_ppm < _UNKNOWN_PPM
        drift = f"{clock.drift_ppm:+.1f} +- {clock.drift_uncertainty_ppm:.1f} ppm fast"
        rows["its clock"] = drift if known else f"drift not known after {clock.span_s:.0f} s"
        rows["jitter"] = f"{clock.jitter_s * 1e3:.1f} ms"
    for name, value in rows.items():
        table.add_row(name, value)
    return table
