"""What throw-away machines are made of: a base system, packages, wheels and sources, fetched once and kept in a cache.

Fetched through the ordinary clients (debootstrap, apt, pip, git); the machines themselves have no way out.
"""

import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shared.llama.engine_wheel import cache_dir, find_wheel

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
BASE_PACKAGES = "python3,python3-apt,systemd,systemd-sysv,dbus,openssh-server,sudo,udev,iproute2,ca-certificates,procps"
LAB_PACKAGES = (
    "chrony", "nftables", "python3-venv", "sqlite3", "libgomp1", "cage", "chromium", "xwayland", "libnss3-tools", "g++",
    "git", "make",
)  # fmt: skip
LOCKS = ("build", "node", "surgeon", "meter", "meter-parquet", "orchestrator")
ENGINE_DEFAULTS = yaml.safe_load((ROOT / "ansible/roles/engine/defaults/main.yml").read_text())


def run(
    *argv: str | Path, timeout_s: float = 600.0, check: bool = True, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; a failure shows its output."""
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=timeout_s, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Supplies:
    """What machines are made of, kept in the user's cache between runs."""

    root: Path
    debs: Path
    wheels: Path
    dllama: Path


def supplies() -> Supplies:
    """Return all supplies, fetching what is not in the cache."""
    home = cache_dir() / "provision"
    home.mkdir(parents=True, exist_ok=True)
    found = Supplies(home / f"root-{SUITE}", home / "debs", home / "wheels", home / "dllama.git")
    if not found.root.exists():
        half = home / "root.half"
        shutil.rmtree(half, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, half, MIRROR, timeout_s=1800)
        half.rename(found.root)
    _once(found.debs, " ".join(LAB_PACKAGES), lambda: _fetch_debs(found))
    engine = find_wheel()
    assert engine is not None, "the engine's wheel is not built: make install"
    locks = [ROOT / "requirements" / f"{name}.txt" for name in LOCKS]
    wanted = f"{engine.name} {[lock.read_text() for lock in locks]}"
    _once(found.wheels, wanted, lambda: _fetch_wheels(found.wheels, engine, locks))
    if not found.dllama.exists():
        half = home / "dllama.half"
        shutil.rmtree(half, ignore_errors=True)
        run("git", "clone", "--quiet", "--bare", ENGINE_DEFAULTS["engine_dllama_repository"], half, timeout_s=900)
        half.rename(found.dllama)
    return found


def _once(folder: Path, wanted: str, fetch: Callable[[], None]) -> None:
    """Fill a folder unless it was filled for the same wishes."""
    mark, wish = folder / ".made-for", hashlib.sha256(wanted.encode()).hexdigest()
    if mark.exists() and mark.read_text() == wish:
        return
    folder.mkdir(exist_ok=True)
    fetch()
    mark.write_text(wish)


def _fetch_debs(found: Supplies) -> None:
    """Let apt work out and fetch what the roles will install, and index it as a repository."""
    archives = found.root / "var/cache/apt/archives"
    for deb in found.debs.glob("*.deb"):
        shutil.move(deb, archives)  # from an earlier wish: apt need not fetch them again
    command = "apt-get update -q && apt-get install -q -y --download-only --no-install-recommends " + " ".join(
        LAB_PACKAGES
    )
    run("chroot", found.root, "sh", "-c", command, timeout_s=1800)
    for deb in archives.glob("*.deb"):
        shutil.move(deb, found.debs / deb.name)
    index = []
    for deb in sorted(found.debs.glob("*.deb")):
        fields = run("dpkg-deb", "--field", deb).stdout.strip()
        sha256 = run("sha256sum", deb).stdout.split()[0]
        index.append(f"{fields}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256}\n")
    (found.debs / "Packages").write_text("\n".join(index))


def _fetch_wheels(wheels: Path, engine: Path, locks: list[Path]) -> None:
    """Fetch what the lock names for every part of a lab."""
    for former in wheels.iterdir():
        former.unlink()
    shutil.copy(engine, wheels)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--dest", wheels)
    wanted = [argument for lock in locks for argument in ("-r", lock)]
    run(*pip, "--require-hashes", "--no-build-isolation", *wanted, timeout_s=1800)
