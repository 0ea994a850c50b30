"""Fitness of a set of kept experts: accuracy on questions, with the others masked in the running engine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.checkpoints import gguf, surgery
from shared.checkpoints.gguf_experts import expert_layers
from shared.files.durability import hash_file
from shared.kernel.errors import ConfigurationError
from shared.llama import model as llama
from surgeon.search.evolution import Candidate, Fitness, split, split_dev
from surgeon.search.masking import ExpertMask
from surgeon.search.multiple_choice import QUESTION_TEMPLATE, MultipleChoiceScorer, Question, load_questions


class TaskFitness:
    """A loaded model and questions in a training and a validation split; use as a context manager."""

    def __init__(
        self,
        model_path: Path,
        questions: Sequence[tuple[Path, str]],
        *,
        train_share: float = 0.5,
        dev_share: float = 0.0,
        threads: int = 1,
        use_mmap: bool = True,
    ) -> None:
        """Load the model and the questions.

        Args:
            model_path: a GGUF.
            questions: files of questions and their templates ("" for the usual one); each file is split by itself.
            train_share: share of the questions the search may see.
            dev_share: share of those that only decides among the best candidates.
            threads: CPU threads.
            use_mmap: False where the weights are to be changed in memory.

        Raises:
            ConfigurationError: no questions, or a model without experts.
        """
        if not questions:
            raise ConfigurationError("a task search needs questions", hint="give --questions FILE.jsonl")
        info = surgery.describe(model_path)
        self.n_layers, self.n_experts, self.experts_per_token = info.n_layers, info.n_experts, info.experts_per_token
        self.layers = expert_layers(gguf.load(model_path))
        self._mask = ExpertMask(self.layers, self.n_experts)
        self.model = llama.Model(model_path, use_mmap=use_mmap)
        self._train: list[MultipleChoiceScorer] = []
        self._dev: list[MultipleChoiceScorer] = []
        self._validation: list[MultipleChoiceScorer] = []
        digest = hashlib.sha256(hash_file(model_path).encode())
        for path, template in questions:
            items = load_questions(path)
            digest.update(f"{hash_file(path)} {template} {train_share}{f' {dev_share}' if dev_share else ''}".encode())
            seen, unseen = split(len(items), train_share)
            train, dev = split_dev(seen, dev_share)
            for scorers, numbers in ((self._train, train), (self._dev, dev), (self._validation, unseen)):
                if not numbers:
                    continue
                chosen: list[Question] = [items[number] for number in numbers]
                prompt = template or QUESTION_TEMPLATE
                scorers.append(
                    MultipleChoiceScorer(self.model, chosen, template=prompt, threads=threads, on_tensor=self._mask)
                )
        self.identity = digest.hexdigest()

    def __enter__(self) -> Self:
        """Return the fitness."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the model."""
        for scorer in (*self._train, *self._dev, *self._validation):
            scorer.close()
        self.model.close()

    def train(self, candidate: Candidate | None) -> Fitness:
        """Return the fitness on the training questions; None masks nothing."""
        return self._measure(candidate, self._train)

    def dev(self, candidate: Candidate | None) -> Fitness:
        """Return the fitness on the questions that decide among the best candidates."""
        return self._measure(candidate, self._dev)

    def validation(self, candidate: Candidate | None) -> Fitness:
        """Return the fitness on the questions that no search sees."""
        return self._measure(candidate, self._validation)

    def validation_answers(self, candidate: Candidate | None) -> list[bool]:
        """Return question by question whether the answer was right, for paired comparisons."""
        self._mask.keep(candidate)
        return [right for scorer in self._validation for right in scorer.score().correct]

    def _measure(self, candidate: Candidate | None, scorers: list[MultipleChoiceScorer]) -> Fitness:
        self._mask.keep(candidate)
        scores = [scorer.score() for scorer in scorers]
        # Each task counts the same, whatever its number of questions.
        return Fitness(
            accuracy=sum(score.accuracy for score in scores) / len(scores),
            margin=sum(score.margin for score in scores) / len(scores),
        )
