"""Names of what a surgeon has, and parameters of what is asked for by name."""

from typing import Annotated

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
"""Of a model, corpus, question file, ranking or search."""
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Parameters = dict[ParameterName, str | int | float | bool]
