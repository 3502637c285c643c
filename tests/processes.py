"""Several processes of torchrun, started by a test."""

import os
import subprocess
import sys
from pathlib import Path

from tiny_runs import REPOSITORY, python_path


def torchrun(*arguments: str, cwd: Path = REPOSITORY) -> "subprocess.Popen[str]":
    """Two processes on this machine, each on one thread."""
    paths = python_path(REPOSITORY, REPOSITORY / "tests", REPOSITORY / "scripts")
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "--", *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finished(job: "subprocess.Popen[str]") -> str:
    """What the job printed; it has ended well."""
    out, error = job.communicate(timeout=240)
    assert job.returncode == 0, error
    return out
