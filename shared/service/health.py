"""What is wrong with a daemon now: its parts report here, `GET /v1/health` reads it.

A problem is known by a key, so that a part can say it again, say more of it, or take it back. Not here: the answer's
shape (`shared.wire.protocol`), its endpoint (`shared.wire.health_api`).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger(__name__)

HealthStatus = Literal["ok", "degraded", "failing"]
"""`degraded`: something needs care, the daemon does its work. `failing`: it cannot do what it is there for."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, as a sentence for whoever runs the lab."""

    text: str
    failing: bool = False


class HealthRegistry:
    """The problems of one daemon, by key; what lasts is logged when it begins and when it is over."""

    def __init__(self) -> None:
        self._reported: dict[str, Problem] = {}
        self._sources: list[Callable[[], Iterable[Problem]]] = []

    def set(self, key: str, text: str, *, failing: bool = False) -> None:
        """Report a problem, or say it anew; `failing` when the daemon cannot do its work while it lasts."""
        problem = Problem(text, failing)
        if self._reported.get(key) != problem:
            log.log(logging.ERROR if failing else logging.WARNING, "problem %s: %s", key, text)
        self._reported[key] = problem

    def clear(self, key: str) -> None:
        """Take a problem back; one that was never reported is no error."""
        if self._reported.pop(key, None) is not None:
            log.info("problem %s is over", key)

    def watch(self, source: Callable[[], Iterable[Problem]]) -> None:
        """Ask `source` for its problems whenever somebody asks for the health: for what is cheap to look up."""
        self._sources.append(source)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong now; what keeps the daemon from its work comes first."""
        return tuple(problem.text for problem in self._all())

    @property
    def status(self) -> HealthStatus:
        """How the daemon is as a whole."""
        found = self._all()
        if not found:
            return "ok"
        return "failing" if found[0].failing else "degraded"

    def _all(self) -> list[Problem]:
        looked_up = [problem for source in self._sources for problem in source()]
        return sorted([*self._reported.values(), *looked_up], key=lambda problem: not problem.failing)
