"""Finds lm-eval task YAMLs by name, ours before lm-eval's own, and opens groups and tags into their tasks.

A task file may name Python functions, which are then run here. So a name is only ever looked up in an index of three
places: the directories that the lab's owner configured, the lab's own tasks, and lm-eval's. It never becomes a path.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.benchmarks.offline import go_offline

go_offline()
import lm_eval.tasks  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

from orchestrator.domain.campaign.protocol import TaskName  # noqa: E402
from shared.kernel.errors import ConfigurationError, NotFoundError  # noqa: E402
from shared.kernel.regular_files import SETTINGS_BYTES, require_regular  # noqa: E402

OWN_TASKS = Path(__file__).parent / "tasks"
"""Task files that ship with the lab."""

_THEIR_TASKS = Path(lm_eval.tasks.__file__).parent
_THEIR_FOLDERS = frozenset(path.name for path in _THEIR_TASKS.iterdir() if path.is_dir())
_TASK_NAME: TypeAdapter[str] = TypeAdapter(TaskName)
_GROUP_KEYS = {"group", "group_alias", "task", "tag", "aggregate_metric_list", "metadata"}


@dataclass(frozen=True)
class TaskFile:
    """One lm-eval task: its whole config with functions resolved, and the YAML file it came from."""

    name: str
    path: Path
    config: dict[str, Any]


class TaskFiles:
    """Task YAMLs by name.

    `include_paths` come first, then the lab's own tasks. lm-eval's folder has thousands of files and is indexed only
    when a name is found nowhere else.
    """

    def __init__(self, include_paths: tuple[Path, ...] = ()) -> None:
        for path in include_paths:
            if not path.is_dir():
                raise NotFoundError("no such directory of benchmark tasks", where=str(path))
            _require_files(path)
        self._ours = _index((OWN_TASKS, *include_paths))
        self._theirs: dict[str, Any] = {}

    def own(self) -> list[tuple[str, Path]]:
        """Return (name, YAML file) of the tasks that are not lm-eval's, by name."""
        return [(name, Path(entry.yaml_path)) for name, entry in sorted(self._ours.items()) if entry.yaml_path]

    def find(self, name: str) -> list[TaskFile]:
        """Return the tasks that `name` stands for: one, or those of a group or tag in its order.

        Raises:
            NotFoundError: neither we nor lm-eval know the name.
            ConfigurationError: not a name, or the task is a Python class, which needs more than this loader gives.
        """
        found = list(self._expand(name, {}))
        if not found:
            raise ConfigurationError("the group has no tasks", where=name)
        return found

    def _entry(self, name: str) -> Any:
        try:
            _TASK_NAME.validate_python(name)
        except ValidationError as error:
            raise ConfigurationError(
                f"not a name of a benchmark task: {name[:80]!r}", where="benchmark suite", hint="a name, not a path"
            ) from error
        if name in self._ours:
            return self._ours[name]
        if name in self._theirs:
            return self._theirs[name]
        if (folder := name.split("_")[0]) in _THEIR_FOLDERS:  # mmlu_* lies in mmlu/: milliseconds, not seconds
            self._theirs |= _index((_THEIR_TASKS / folder,))
        if name not in self._theirs:
            self._theirs |= _index((_THEIR_TASKS,))
        if name not in self._theirs:
            raise NotFoundError(
                f"no benchmark task is called {name!r}",
                where="benchmark suite",
                hint=f"own tasks: {', '.join(sorted(self._ours)) or 'none'}; or any lm-eval task",
            )
        return self._theirs[name]

    def _expand(self, name: str, overrides: dict[str, Any]) -> Iterator[TaskFile]:
        entry = self._entry(name)
        if entry.yaml_path is None:  # a tag
            for member in sorted(entry.tags):
                yield from self._expand(member, overrides)
            return
        config = load_yaml(entry.yaml_path)
        if "group" in config:
            inherited = {key: value for key, value in config.items() if key not in _GROUP_KEYS}
            for member in config.get("task") or []:
                yield from self._expand_member(member, {**inherited, **overrides})
            return
        if "class" in config:
            raise ConfigurationError("tasks written as a Python class are not supported", where=name)
        structure = {"tag", "group", "task_list"}
        plain = {key: value for key, value in config.items() if key not in structure}
        yield TaskFile(name, Path(entry.yaml_path), {**plain, **overrides, "task": name})

    def _expand_member(self, member: str | dict[str, Any], overrides: dict[str, Any]) -> Iterator[TaskFile]:
        if isinstance(member, str):
            yield from self._expand(member, overrides)
            return
        if isinstance(members := member.get("task"), list):  # a group written inside its parent
            for child in members:
                yield from self._expand_member(child, overrides)
            return
        own = {key: value for key, value in member.items() if key not in _GROUP_KEYS}
        yield from self._expand(str(member.get("task") or member["group"]), {**overrides, **own})


def _require_files(folder: Path) -> None:
    """Refuse a folder of tasks with what lm-eval would wait for, or read without end.

    Raises:
        ConfigurationError: a YAML file is no regular file, or far too large.
    """
    for pattern in ("*.yaml", "*.yml"):
        for path in sorted(folder.rglob(pattern)):
            try:
                require_regular(path, SETTINGS_BYTES)
            except OSError as error:
                raise ConfigurationError(f"cannot read the task: {error.strerror}", where=str(path)) from error


def _index(paths: tuple[Path, ...]) -> dict[str, Any]:
    existing = [path for path in paths if path.is_dir()]
    manager = lm_eval.tasks.TaskManager(include_path=existing, include_defaults=False)
    return dict(manager.task_index)
