"""scripts/slurm.sh asks for what it should; the scheduler's own programs are stand-ins."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY


def submit(
    folder: Path, *arguments: str, srun: str = 'printf "%s\\n" "$@"'
) -> "subprocess.Popen[str]":
    """A job of two nodes with four GPUs each; what `scontrol requeue` is told is in "requeued"."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in {
        "scontrol": f'if [[ $1 == requeue ]]; then echo "$2" > {folder}/requeued; else\n'
        'printf "node7\\nnode8\\n"\nfi',
        "srun": srun,
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2",
           "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "11"}  # fmt: skip
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [str(REPOSITORY / "scripts/slurm.sh"), *arguments],
        env=os.environ | job | {"PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def submitted(folder: Path, *arguments: str) -> list[str]:
    """The command line that `srun` is given."""
    job = submit(folder, *arguments)
    out, error = job.communicate(timeout=30)
    assert job.returncode == 0, error
    return out.splitlines()


@pytest.mark.parametrize("interrupted", ["", "resume.pth", "resume.previous.pth"])
def test_a_job_runs_a_preset_and_goes_on_with_it(tmp_path: Path, interrupted: str) -> None:
    if interrupted:
        (tmp_path / "snapshots/toy_aagc").mkdir(parents=True)
        (tmp_path / "snapshots/toy_aagc" / interrupted).touch()
    command = submitted(tmp_path, "toy_aagc", "--set", "train.batch_size=8")
    assert command == [
        "torchrun", "--nnodes", "2", "--nproc-per-node", "4", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "node7:29500", "--rdzv-id", "11", "--", "train_uda.py",
        "--preset", "toy_aagc", *(["--resume"] if interrupted else []),
        "--set", "train.batch_size=8",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [("--run", "other"), ("--run=other",)])
def test_a_job_goes_on_with_a_run_of_another_name(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    for name in ("toy_aagc", "other"):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
    (tmp_path / "snapshots/other/resume.pth").touch()
    assert "--resume" in submitted(tmp_path, "toy_aagc", *arguments)
    shutil.rmtree(tmp_path / "bin")
    assert "--resume" not in submitted(tmp_path, "toy_aagc")


@pytest.mark.parametrize(
    ("number", "status", "queued_again"),
    [(signal.SIGUSR1, 1, True), (signal.SIGUSR1, 0, False), (signal.SIGTERM, 1, False)],
)
def test_a_signal_reaches_the_run_and_the_job_is_queued_again(
    tmp_path: Path, number: signal.Signals, status: int, queued_again: bool
) -> None:
    """When its time is up, unless the run has just come to its end; not when somebody ends it."""
    srun = f"trap 'echo saved; exit {status}' TERM\necho started\nwhile true; do sleep 0.05; done"
    job = submit(tmp_path, "toy_aagc", srun=srun)
    assert job.stdout is not None
    assert job.stdout.readline() == "started\n"
    job.send_signal(number)
    out, error = job.communicate(timeout=30)
    assert (job.returncode, out, error) == (status, "saved\n", "")
    requeued = tmp_path / "requeued"
    assert requeued.exists() == queued_again
    assert not queued_again or requeued.read_text() == "11\n"
