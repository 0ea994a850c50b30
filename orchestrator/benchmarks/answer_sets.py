"""Answer sets: all answers of a model to a choice of questions, computed once under the hash of what they depend on.

Every repetition, serving and campaign that asks for the same takes the same set. Not here: who answers, and when
(`orchestrator.campaign`), how answers in the making are kept (`resume`).
"""

import hashlib
import logging
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from orchestrator.benchmarks.records import TaskVersion
from orchestrator.domain.run.question_sets import QuestionSet
from orchestrator.domain.run.records import ServedBy
from shared.files.atomic import write_file
from shared.files.checked_json import dump_checked, parse_checked
from shared.kernel.errors import DataError
from shared.kernel.records import EngineName, QuestionResult, Record, Sha256, canonical_bytes
from shared.kernel.regular_files import RECORDS_BYTES, read_bytes

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}\.json\Z")


class AnswerSetKey(Record):
    """Everything that answers depend on. Two keys of one hash ask the same of the same arithmetic."""

    schema_version: Literal[1] = 1
    model_sha256: Sha256
    experts_per_token: int | None = Field(description="K override; null: the model's own")
    engine: EngineName
    engine_build: str
    engine_libraries_sha256: Sha256 | None = Field(description="machine code of the engine; null: the agent is too old")
    processors: tuple[str, ...] = Field(description="kinds of CPU that take part: kernels are chosen by them")
    gpu_layers: int = 0
    context_tokens: int
    sequences: int
    threads: int
    questions_per_job: int = Field(description="how questions are grouped in batches, which moves K-quants' results")
    tasks: tuple[TaskVersion, ...] = Field(description="prompts and options in the order asked")

    def sha256(self) -> Sha256:
        """Return the hash under which the answer set is kept."""
        return hashlib.sha256(canonical_bytes(self.model_dump(mode="json"))).hexdigest()


class AnswerSet(Record):
    """The answers to all questions of a key. Their times are those of the machine that answered, of no window."""

    schema_version: Literal[1] = 1
    key: AnswerSetKey
    served: ServedBy
    questions: tuple[QuestionResult, ...] = Field(min_length=1)
    question_sets: tuple[QuestionSet, ...] = ()
    versions: dict[str, str] = Field(description="library -> version")
    start_utc_ns: int
    end_utc_ns: int

    @property
    def untimed(self) -> tuple[QuestionResult, ...]:
        """The questions as a result holds them: no window of its trace saw them."""
        return tuple(one.model_copy(update={"start_utc_ns": None, "end_utc_ns": None}) for one in self.questions)


class AnswerStore:
    """A folder of answer sets, a file each, and of those in the making."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: AnswerSetKey) -> AnswerSet | None:
        """Return the answers to what `key` asks, None where they are not known.

        A file that is damaged or another's is kept beside, as `.damaged`: its questions can be asked again.
        """
        path = self._path(key)
        try:
            answers = parse_checked(AnswerSet, read_bytes(path, RECORDS_BYTES))
        except FileNotFoundError:
            return None
        except DataError as error:
            why = error.message
        else:
            if answers.key == key:
                return answers
            why = "it holds another answer set than its name says"
        log.warning("the answer set %s is damaged and will be made again: %s", path, why)
        path.replace(path.with_suffix(".damaged"))
        return None

    def keep(self, answers: AnswerSet) -> None:
        """Write an answer set; it survives a power cut from here on. What was kept of its making goes.

        Raises:
            OSError: the disk does not take it.
        """
        write_file(self._path(answers.key), dump_checked(answers))
        self.in_the_making(answers.key).unlink(missing_ok=True)

    def in_the_making(self, key: AnswerSetKey) -> Path:
        """Return the file in which answers are kept until the set is whole."""
        return self._folder / "in-the-making" / f"{key.sha256()}.jsonl"

    def hashes(self) -> list[Sha256]:
        """Return the hashes of all sets that are whole."""
        if not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _path(self, key: AnswerSetKey) -> Path:
        return self._folder / f"{key.sha256()}.json"
