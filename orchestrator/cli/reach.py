"""How a command reaches its orchestrator: five options that every such command has, declared once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from orchestrator.cli.api import Api, find_api
from orchestrator.cli.lab import JsonOption, OutOption
from shared.kernel.errors import ConfigurationError
from shared.screen import say_json
from shared.service.tls import CA_VARIABLE

UrlOption = Annotated[str | None, typer.Option("--url", help="Orchestrator of another machine, e.g. http://lab:8700.")]
TokenOption = Annotated[Path | None, typer.Option("--token-file", help="Token for --url (or EPI_TOKEN).")]
CaOption = Annotated[
    Path | None, typer.Option("--ca-file", envvar=CA_VARIABLE, help="The lab's own CA, pinned; for an https --url.")
]

P = ParamSpec("P")


@dataclass(frozen=True)
class Reach:
    """The orchestrator that the options name, and how the answer is printed."""

    out: Path
    url: str | None
    token_file: Path | None
    ca_file: Path | None
    as_json: bool

    def api(self) -> Api:
        """Return a client of it.

        Raises:
            ConfigurationError: there is none.
        """
        return find_api(self.out, self.url, self.token_file, self.ca_file)

    def pick(self, api: Api, campaign: str | None) -> str:
        """Return the campaign that is meant: the newest where none is named.

        Raises:
            ConfigurationError: there is none yet.
        """
        if campaign is not None:
            return campaign
        campaigns = api.call("GET", "/v1/campaigns?limit=1")
        if not campaigns:
            raise ConfigurationError(
                "there is no campaign yet", hint="`epi demo` runs one, `epi campaign start SPEC` starts one"
            )
        return str(campaigns[0]["id"])

    def show(self, answer: Any, rendered: Callable[[Any], None]) -> None:
        """Print an answer as JSON if that was asked, else in words."""
        if self.as_json:
            say_json(answer)
        else:
            rendered(answer)


def reaching(command: Callable[Concatenate[Reach, P], None]) -> Callable[..., None]:
    """Give a command, instead of its first parameter, the options --out, --url, --token-file, --ca-file and --json."""

    @functools.wraps(command)
    def with_options(
        *args: Any, out: Path, url: str | None, token_file: Path | None, ca_file: Path | None, as_json: bool,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        command(Reach(out, url, token_file, ca_file, as_json), *args, **kwargs)

    options = {"out": (OutOption, Path("results")), "url": (UrlOption, None), "token_file": (TokenOption, None),
               "ca_file": (CaOption, None), "as_json": (JsonOption, False)}  # fmt: skip
    own = list(inspect.signature(command).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in options.items()
    ]
    with_options.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in (*own, *added)}
    return with_options
