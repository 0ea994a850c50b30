"""What exactly runs here: the project's version, where its code came from, and hashes that tell equal from different.

Not here: the engine's build (`shared.llama.build`).
"""

import functools
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from pydantic import Field

from shared.kernel.records import Record, Sha256

PACKAGES: Final = ("meter_bridge", "node_agent", "orchestrator", "shared", "surgeon")
_ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = (*PACKAGES, "pyproject.toml", "requirements")
_GIT_S: Final = 20.0


class SoftwareBuild(Record):
    """One installation. Two with the same `code_sha256` run the same code, however they were installed."""

    version: str = Field(description="of pyproject.toml")
    revision: str | None = Field(default=None, description="git commit, where it runs from a checkout")
    changed: bool = Field(default=False, description="the checkout differs from its revision")
    release: str | None = Field(default=None, description="id of the release, where one is installed")
    code_sha256: Sha256 = Field(description="of all Python files of the project's packages")
    packages_sha256: Sha256 = Field(description="of name and version of every other package that is installed")
    python: str

    def __str__(self) -> str:
        """Return the build in one word, for example 0.2.0+g1a2b3c4d5e6f or 0.2.0+r1a2b3c4d5e6f7a8b."""
        if self.revision is not None:
            change = f".dirty.{self.code_sha256[:8]}" if self.changed else ""
            return f"{self.version}+g{self.revision[:12]}{change}"
        return f"{self.version}+{f'r{self.release}' if self.release is not None else f'c{self.code_sha256[:12]}'}"


@functools.cache
def software_build() -> SoftwareBuild:
    """Return what runs in this process; looked up once."""
    return look_up(_ROOT, Path(sys.prefix))


def look_up(root: Path, prefix: Path) -> SoftwareBuild:
    """Return the build whose packages lie in `root` and whose environment is `prefix`."""
    revision, changed, release = None, False, None
    if (commit := _git(root, "rev-parse", "HEAD")) is not None:
        revision, changed = commit.strip(), bool(_git(root, "status", "--porcelain", "--", *_SOURCES))
    else:
        release = _release(prefix)
    return SoftwareBuild(
        version=_version(root), revision=revision, changed=changed, release=release, code_sha256=_code_sha256(root),
        packages_sha256=_packages_sha256(), python=platform.python_version(),
    )  # fmt: skip


def _version(root: Path) -> str:
    """Return the version of the code that runs: a checkout's own word counts, not that of an older installation."""
    try:
        return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return importlib.metadata.version("epi-factory")


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says of the checkout that `root` is, None where it is none."""
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists() or shutil.which("git") is None:
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "-c", f"safe.directory={root}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _release(prefix: Path) -> str | None:
    """Return the id that the release role wrote beside the installation."""
    try:
        return str(json.loads((prefix / "release.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _code_sha256(root: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            inside = path.relative_to(root).as_posix()
            if "node_modules" not in inside:
                digest.update(f"{inside} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _packages_sha256() -> str:
    installed = {(one.name.lower(), one.version) for one in importlib.metadata.distributions() if one.name}
    others = sorted(f"{name}=={version}" for name, version in installed if name != "epi-factory")
    return hashlib.sha256("\n".join(others).encode()).hexdigest()
