"""`epi dashboard`: a link that signs a browser in, and signing all of them out."""

from typing import Annotated

import typer

from orchestrator.cli.api import sign_in_link
from orchestrator.cli.reach import Reach, reaching
from shared.screen import say

app = typer.Typer(help="Print a link that opens the dashboard, signed in.")


@app.callback(invoke_without_command=True)
@reaching
def dashboard(
    reach: Reach,
    sign_out: Annotated[
        bool, typer.Option("--sign-out", help="Sign every browser out, and take back all links.")
    ] = False,
) -> None:
    """Print a link that signs one browser in, once, within an hour."""
    api = reach.api()
    if sign_out:
        reach.show(
            api.call("DELETE", "/v1/sessions"), lambda answer: say(f"signed out: {answer['sessions']} browser(s)")
        )
        return
    reach.show({"dashboard": sign_in_link(api)}, lambda answer: say(answer["dashboard"]))
