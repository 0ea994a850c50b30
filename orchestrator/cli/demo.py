"""`epi demo`: a whole campaign on this machine with the embedded model, from nothing to an EPI curve."""

import time
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.campaign.demo_spec import demo_spec
from orchestrator.cli.api import find_api, sign_in_link
from orchestrator.cli.campaign import finish
from orchestrator.cli.lab import DemoOption, OutOption, running_lab
from orchestrator.local.control import find_demo
from shared.screen import Screen

app = typer.Typer(help="Run a whole campaign here: real model, surgery, engines; emulated power, labelled so.")

console = Screen(stderr=True, soft_wrap=True)


@app.callback(invoke_without_command=True)
def demo(
    configs: Annotated[str, typer.Option(help="`all`, or configuration ids separated by commas.")] = "all",
    reps: Annotated[int | None, typer.Option(min=1, help="Repetitions of each configuration.")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="Questions per task, stratified and seeded.")] = None,
    out: OutOption = Path("results"),
    demo_file: DemoOption = None,
) -> None:
    """Run the 25-configuration matrix (or --configs) and print the table."""
    spec = demo_spec(
        find_demo(demo_file), campaign_id=time.strftime("demo-%Y%m%d-%H%M%S", time.gmtime()),
        configurations=configs, repetitions=reps, questions=questions,
    )  # fmt: skip
    try:
        with running_lab(out, demo_file):
            api = find_api(out, None, None)
            console.print(f"dashboard: {sign_in_link(api)}")
            console.print("power is EMULATED from the CPU time that each node's engine uses; no meter is attached")
            api.call("POST", "/v1/campaigns", spec.model_dump(mode="json"))
            finish(api, spec.id)
            console.print(f"results:   {out / spec.id}")
    except KeyboardInterrupt:
        console.print(f"\nstopped; go on with: epi campaign resume {spec.id} --out {out}")
        raise typer.Exit(130) from None
