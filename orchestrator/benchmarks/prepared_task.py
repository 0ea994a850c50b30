"""An lm-eval task whose questions are local, whose shots are pinned, and whose requests are built once.

Prompts, options, answers and metrics stay lm-eval's own: this class only decides where documents come from, which of
them are shots, and that a second evaluation of the same questions reuses the requests of the first.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from orchestrator.benchmarks.offline import go_offline

go_offline()
from lm_eval.api.samplers import get_sampler  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402

from orchestrator.benchmarks.local_data import Doc, Splits  # noqa: E402
from orchestrator.benchmarks.task_files import TaskFile  # noqa: E402
from shared.kernel.errors import ConfigurationError  # noqa: E402

GENERATED = "generate_until"
_ASKABLE = ("multiple_choice", "loglikelihood", GENERATED)


class PreparedTask(ConfigurableTask):  # type: ignore[misc]  # lm_eval ships no types
    """One lm-eval task over given documents.

    Args:
        file: The task's config.
        splits: Documents of each split.
        shots: Number of few-shot examples; None keeps the task's own.
        pin_shots: Give every question the same first examples instead of a random draw.
        seed: Of the random draw, where shots are not pinned.
    """

    def __init__(self, file: TaskFile, splits: Splits, *, shots: int | None, pin_shots: bool, seed: int) -> None:
        self._given_splits = splits
        self._built = False
        self._shot_ids: set[int] = set()
        self._rendered: dict[tuple[str, int, int], Any] = {}
        config = _config_for(file, splits)
        if shots is not None:
            config["num_fewshot"] = shots
        self.sampler: Any = None  # set by lm-eval
        super().__init__(config=config)
        if self.OUTPUT_TYPE not in _ASKABLE:
            raise ConfigurationError(
                f"output type {self.OUTPUT_TYPE!r} can be answered neither by log-likelihood nor in free text",
                where=file.name,
                hint=f"choose a task whose output_type is {', '.join(_ASKABLE)}",
            )
        self.shots = int(self.config.num_fewshot or 0)
        self._pinned: list[Doc] = []
        self.set_fewshot_seed(seed)
        if pin_shots and self.shots:
            self._pin(file.name)

    def _pin(self, name: str) -> None:
        pool: list[Doc] = list(self.sampler.df)
        if len(pool) < self.shots:
            raise ConfigurationError(f"{self.shots} shots are asked for, the data have {len(pool)}", where=name)
        self._pinned = pool[: self.shots]
        self._shot_ids = {id(doc) for doc in self._pinned}
        self.sampler = get_sampler("first_n")(self._pinned, rnd=None)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take the given documents; nothing is downloaded."""
        self.dataset = self._given_splits

    @cached_property
    def eval_docs(self) -> Sequence[Doc]:
        """Documents that may be asked, preprocessed once."""
        docs: Sequence[Doc] = super().eval_docs
        return docs

    @cached_property
    def askable(self) -> list[int]:
        """Indices into `eval_docs` of the questions that are not among the pinned shots."""
        shots = {doc_hash(doc) for doc in self._pinned}
        return [i for i, doc in enumerate(self.eval_docs) if not shots or doc_hash(doc) not in shots]

    def doc_iterator(self, *, samples: list[int] | None = None, **kwargs: Any) -> Iterator[tuple[int, Doc]]:
        """Yield (running number, document) of `samples`, read by index instead of by scanning all documents."""
        if not samples:
            yield from super().doc_iterator(samples=samples, **kwargs)
            return
        for number, index in enumerate(samples):
            yield number, self.eval_docs[index]

    def build_all_requests(self, **kwargs: Any) -> None:
        """Build the requests the first time; later only forget their answers."""
        if not self._built:
            super().build_all_requests(**kwargs)
            self._built = True
        for instance in self.instances:
            instance.resps.clear()
            instance.filtered_resps.clear()

    def doc_to_text(self, doc: Doc, doc_to_text: Any = None) -> Any:
        """Render a question; a pinned shot is rendered once, not once for every question."""
        return self._once("text", super().doc_to_text, doc, doc_to_text)

    def doc_to_target(self, doc: Doc, doc_to_target: Any = None) -> Any:
        """Render an answer; a pinned shot's once."""
        return self._once("target", super().doc_to_target, doc, doc_to_target)

    def doc_to_choice(self, doc: Doc, doc_to_choice: Any = None) -> Any:
        """Render the options; a pinned shot's once."""
        return self._once("choice", super().doc_to_choice, doc, doc_to_choice)

    def _once(self, kind: str, render: Callable[[Doc, Any], Any], doc: Doc, template: Any) -> Any:
        if id(doc) not in self._shot_ids:
            return render(doc, template)
        key = (kind, id(doc), id(template))  # shots and templates live as long as the task
        if key not in self._rendered:
            self._rendered[key] = render(doc, template)
        return self._rendered[key]

    def source_docs(self) -> list[Doc]:
        """Return the documents of the splits that questions and shots are drawn from, as the files have them."""
        config = self.config
        used = dict.fromkeys((config.test_split or config.validation_split, config.fewshot_split))
        return [dict(doc) for split in used if split in self._given_splits for doc in self._given_splits[split]]

    def prompts_sha256(self) -> str:
        """Return the hash of every (prompt, option) of the built requests in order."""
        digest = hashlib.sha256()
        for instance in self.instances:
            digest.update(json.dumps(instance.args, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def doc_hash(doc: Doc) -> str:
    """Return the first 16 hex digits of the SHA-256 of a document's canonical JSON."""
    text = json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _config_for(file: TaskFile, splits: Splits) -> dict[str, Any]:
    """Return the task's config with splits that the local data do not have removed."""
    config = dict(file.config)
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(key) is not None and config[key] not in splits:
            config[key] = None
    if config.get("test_split") is None and config.get("validation_split") is None:
        raise ConfigurationError(
            f"the local data have no split to ask; they have: {', '.join(sorted(splits))}", where=file.name
        )
    asked = config.get("test_split") or config["validation_split"]
    if config.get("fewshot_split") is None:
        config["fewshot_split"] = _first(
            split for split in (config.get("training_split"), config.get("validation_split"), asked) if split
        )
    return config


def _first(values: Iterable[str]) -> str:
    return next(iter(values))
