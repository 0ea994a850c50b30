"""Scorers: node agents that no meter watches answer the questions behind the measurement, one configuration each.

Any number of them; each takes the next configuration in the order of the campaign. What a lost scorer had answered is
kept, and whoever comes next goes on where its engine and machine are of the same kind. Scorers that share a machine
with a node work between the windows only. Not here: asking and keeping (`answers`), what becomes of runs that were
measured meanwhile (`late_answers`).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from orchestrator.benchmarks.answer_sets import AnswerSet, AnswerStore
from orchestrator.campaign.answers import AnswerMaker
from orchestrator.campaign.context import CampaignContext
from orchestrator.campaign.preparation import Variant
from orchestrator.campaign.scorer import Scorer
from shared.kernel.errors import EpiError, InfrastructureError
from shared.kernel.records import Configuration, ConfigurationId, NodeName
from shared.service.health import HealthRegistry

if TYPE_CHECKING:
    from orchestrator.benchmarks.suite import BenchmarkSuite

log = logging.getLogger(__name__)

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LOOK_S: Final = 1.0


class ScorerPool:
    """The scorers at work for one campaign.

    Args:
        order: Configurations in the order in which their answers are wanted.
        variant_of: Returns a configuration's files, waiting until the surgeon has made them.
        suite_of: Makes a suite; each scorer has its own, since a suite does one pass at a time.
        give: Is told of each answer set as soon as it is whole.
    """

    def __init__(
        self,
        context: CampaignContext,
        order: Sequence[Configuration],
        variant_of: Callable[[Configuration], Awaitable[Variant]],
        suite_of: Callable[[], "BenchmarkSuite"],
        store: AnswerStore,
        give: Callable[[ConfigurationId, AnswerSet], Awaitable[None]],
        health: HealthRegistry,
    ) -> None:
        self._context = context
        self._left = deque({one.id: one for one in order}.values())
        self._variant_of = variant_of
        self._suite_of = suite_of
        self._store = store
        self._give = give
        self._health = health
        self._known: dict[ConfigurationId, AnswerSet] = {}
        self._failed: dict[ConfigurationId, str] = {}
        self._by_model: dict[tuple[str, int | None], asyncio.Future[AnswerSet]] = {}
        self._away: dict[NodeName, InfrastructureError] = {}
        self._tasks: dict[NodeName, asyncio.Task[None]] = {}
        self._wanted = len(self._left)

    async def __aenter__(self) -> Self:
        """Set all scorers to work."""
        for name in self._context.lab.scorers:
            self._tasks[name] = asyncio.create_task(self._work(name), name=f"scorer {name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all scorers; what they have answered is kept."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for name in self._tasks:
            self._health.clear(_problem(name))

    def answers_of(self, configuration: ConfigurationId) -> AnswerSet | None:
        """Return a configuration's answers where they are whole."""
        return self._known.get(configuration)

    async def finished(self, check_stop_requested: Callable[[], Awaitable[None]]) -> dict[ConfigurationId, str]:
        """Wait until every configuration has its answers; return why some can have none.

        Raises:
            InfrastructureError: no scorer is left that could answer.
            Exception: whatever a scorer's task died of, or `check_stop_requested` raises.
        """
        while self._unfinished:
            await check_stop_requested()
            await asyncio.wait(self._tasks.values(), timeout=_LOOK_S)
            for task in self._tasks.values():
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            if all(task.done() for task in self._tasks.values()) and self._left:
                missing = ", ".join(one.id for one in self._left)
                away = "; ".join(f"{name}: {error.message}" for name, error in self._away.items())
                raise InfrastructureError(
                    f"no scorer is left to answer the questions of {missing}: {away}",
                    hint="mend one, then `epi campaign resume`; what was answered is kept",
                )
        return dict(self._failed)

    @property
    def _unfinished(self) -> bool:
        return len(self._known) + len(self._failed) < self._wanted

    async def _work(self, name: NodeName) -> None:
        """Answer one configuration after the other; a scorer that stays away leaves the rest to the others."""
        suite = await asyncio.to_thread(self._suite_of)
        maker = AnswerMaker(self._context.spec, suite, self._store)
        scorer = Scorer(self._context, name)
        pause_s, away_since = _FIRST_PAUSE_S, None
        while self._unfinished:
            if not self._left:  # another scorer works on the last ones, and may get lost
                await asyncio.sleep(_LOOK_S)
                continue
            configuration = self._left.popleft()
            try:
                answers = await self._answers(scorer, maker, configuration)
            except InfrastructureError as error:
                self._left.appendleft(configuration)
                away_since = away_since or time.monotonic()
                self._health.set(_problem(name), f"scorer {name}: {error.message}")
                log.warning("scorer %s: %s", name, error)
                if time.monotonic() - away_since > self._context.spec.timeouts.recover_s:
                    self._away[name] = error
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except EpiError as error:
                self._failed[configuration.id] = str(error)
            except asyncio.CancelledError:
                self._left.appendleft(configuration)
                raise
            else:
                pause_s, away_since = _FIRST_PAUSE_S, None
                self._health.clear(_problem(name))
                self._known[configuration.id] = answers
                log.info("scorer %s: %s is answered", name, configuration.id)
                async with self._beside(scorer):
                    await self._give(configuration.id, answers)

    async def _answers(self, scorer: Scorer, maker: AnswerMaker, configuration: Configuration) -> AnswerSet:
        async with self._beside(scorer, also=self._context.spec.pipeline_ahead == 0):
            variant = await self._variant_of(configuration)
        model = variant.scored.request.sha256, configuration.experts_per_token
        made = self._by_model.get(model)
        if made is not None and not (made.done() and made.exception() is not None):
            return await asyncio.shield(made)
        future: asyncio.Future[AnswerSet] = asyncio.get_running_loop().create_future()
        self._by_model[model] = future
        try:
            answers = await scorer.answers(maker, configuration, variant, lambda: self._beside(scorer))
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else InfrastructureError("it was stopped"))
            future.exception()  # seen: whoever waits is told, and nobody need wait
            raise
        future.set_result(answers)
        return answers

    @asynccontextmanager
    async def _beside(self, scorer: Scorer, *, also: bool = False) -> AsyncIterator[None]:
        """Keep out of the windows of a node that shares the scorer's machine."""
        if not also and not self._context.lab.is_beside_a_node(scorer.name):
            yield
            return
        async with self._context.lab.still():
            yield


def _problem(name: NodeName) -> str:
    return f"scorer {name}"
