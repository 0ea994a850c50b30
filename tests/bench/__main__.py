"""`make bench`: every figure that the project claims, measured in this run; ratios wherever a ratio makes sense.

Each `bench_*.py` beside this file is one suite: `python -m tests.bench [SUITE ...]`.
"""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the suites named, or all, one after another; the exit code is the number of suites that failed."""
    known = {path.stem.removeprefix("bench_"): path.stem for path in sorted(Path(__file__).parent.glob("bench_*.py"))}
    wanted = sys.argv[1:] or list(known)
    if unknown := [name for name in wanted if name not in known]:
        print(f"error: no bench suite {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"tests.bench.{known[name]}"]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
