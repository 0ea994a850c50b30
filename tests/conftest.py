"""For all tests: what needs to mount a file system is run again in a user namespace where this user may not."""

import os
import subprocess
import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test marked `mounts` where it may mount; without root and without user namespaces it fails."""
    if pyfuncitem.get_closest_marker("mounts") is None or os.geteuid() == 0:
        return None
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "pytest", "-q", "-p",
         "no:cacheprovider", pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"run in a user namespace, since only root may mount:\n{done.stdout}\n{done.stderr}"
    return True
