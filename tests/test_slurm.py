"""scripts/slurm.sh asks for what it should; the scheduler's own programs are stand-ins."""

import os
import subprocess
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY


def submitted(folder: Path, *arguments: str) -> list[str]:
    """The command line that `srun` is given, in a job of two nodes with four GPUs each."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": 'printf "%s\\n" "$@"',
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2",
           "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "11"}  # fmt: skip
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(REPOSITORY / "scripts/slurm.sh"), *arguments],
        env=os.environ | job | {"PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_job_runs_a_preset_and_goes_on_with_it(tmp_path: Path, interrupted: bool) -> None:
    if interrupted:
        (tmp_path / "snapshots/toy_aagc").mkdir(parents=True)
        (tmp_path / "snapshots/toy_aagc/resume.pth").touch()
    command = submitted(tmp_path, "toy_aagc", "--set", "train.batch_size=8")
    assert command == [
        "torchrun", "--nnodes", "2", "--nproc-per-node", "4", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "node7:29500", "--rdzv-id", "11", "--", "train_uda.py",
        "--preset", "toy_aagc", *(["--resume"] if interrupted else []),
        "--set", "train.batch_size=8",
    ]  # fmt: skip
