"""What `dllama inference` prints, line by line, and the facts it carries.

Formats: src/dllama.cpp at commit 8d624a7. A generated piece may hold line breaks, so one `Pred` line may continue on
the next; lines that are nothing known are ignored.
"""

import re
from dataclasses import dataclass, field

_TIMES = rb"(\d+) ms Sync\s*(\d+) ms \| Sent\s*(\d+) kB Recv\s*(\d+) kB \| "
_EVAL = re.compile(rb"Eval\s*" + _TIMES + rb"\((\d+) tokens\)")
_PRED = re.compile(rb"Pred\s*" + _TIMES + rb"(.*)", re.DOTALL)
_N_TOKENS = re.compile(rb"^\s*nTokens: (\d+)")
_UNREACHABLE = re.compile(rb"Cannot (?:connect to|resolve target) (\S+)")
_CRITICAL = re.compile(rb"(?:Critical error|Inference error|Connection error): (.*)")
_LOADED = re.compile(rb"Weights loaded")


@dataclass
class Transcript:
    """What has been printed so far; times in UTC nanoseconds of arrival."""

    prompt: bytes
    loaded: bool = False
    started_utc_ns: int | None = None
    eval_utc_ns: list[int] = field(default_factory=list)
    eval_tokens: list[int] = field(default_factory=list)
    pred_utc_ns: list[int] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    unreachable: str | None = None
    critical: str | None = None

    def feed(self, line: bytes, at_utc_ns: int) -> None:
        """Take in one line."""
        if match := _PRED.search(line):
            self.pred_utc_ns.append(at_utc_ns)
            self.pieces.append(match.group(5).rstrip(b"\n"))
        elif match := _EVAL.search(line):
            self.eval_utc_ns.append(at_utc_ns)
            self.eval_tokens.append(int(match.group(5)))
        elif match := _N_TOKENS.search(line):
            self.n_tokens.append(int(match.group(1)))
        elif match := _UNREACHABLE.search(line):
            self.unreachable = match.group(1).decode("utf-8", "replace")
        elif match := _CRITICAL.search(line):
            self.critical = match.group(1).decode("utf-8", "replace").strip()
        elif _LOADED.search(line):
            self.loaded = True
        elif self.loaded and self.started_utc_ns is None and line.rstrip(b"\n") == self.prompt.rpartition(b"\n")[2]:
            self.started_utc_ns = at_utc_ns  # the echo of the prompt, just before its evaluation

    @property
    def n_evaluated(self) -> int:
        """Prompt tokens evaluated in batches: all but the last one."""
        return sum(self.eval_tokens)
