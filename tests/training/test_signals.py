"""SIGTERM and SIGINT: the step is finished and saved, and the run can be resumed."""

import os
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from interruptions import (
    before_step,
    experiment_of,
    files,
    long_run,
    run_to_end,
    sending,
    start_group,
    wait_for,
)
from shells import Shell
from tiny_runs import (
    REPOSITORY,
    assert_same,
)
from uda.checkpoints.snapshots import read
from uda.evaluation import inference
from uda.training import loop as engine
from uda.training.signals import Stop, Stopped
from uda.utilities.errors import InputError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_the_run_can_be_resumed(
    number: signal.Signals, toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """The signal arrives in step 3 of 6: it is completed, saved, and not repeated."""
    before = signal.getsignal(number)
    with before_step(2, sending(number)), pytest.raises(Stopped, match=rf"{number.name} after ste"):
        run_to_end(experiment_of(toy_root), tmp_path / "run")
    assert signal.getsignal(number) is before
    assert read(tmp_path / "run/resume.pth")["step"] == 3
    run_to_end(experiment_of(toy_root), tmp_path / "run", resume=True)
    assert_same(files(tmp_path / "run"), undisturbed)


def test_an_evaluation_that_a_signal_cuts_off_is_repeated(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 4, after one of three images; and again while it is repeated."""
    seen: list[int] = []
    original = inference.predict

    def predict(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        seen.append(1)
        if len(seen) == 8:  # three images and their three pictures at step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    monkeypatch.setattr("uda.evaluation.evaluate.predict", predict)
    for resume in (False, True):
        with pytest.raises(Stopped, match="SIGTERM after step 4;"):
            run_to_end(experiment_of(toy_root), tmp_path / "run", resume=resume)
        assert len(seen) == 8, "the other images are not predicted"
        assert read(tmp_path / "run/resume.pth")["unfinished"]
        assert not (tmp_path / "run/GTA5_4.pth").exists()
        seen = seen[:7]
    monkeypatch.undo()
    run_to_end(experiment_of(toy_root), tmp_path / "run", resume=True)
    assert_same(files(tmp_path / "run"), undisturbed)


def test_a_signal_before_the_first_step_leaves_nothing(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "first_weights", sending(signal.SIGTERM))
    with pytest.raises(Stopped, match="stopped by SIGTERM before the first step: start it again"):
        run_to_end(experiment_of(toy_root), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_from_python_says_what_resumes_it(toy_root: Path, tmp_path: Path) -> None:
    """sys.argv is that of whatever program has called."""
    with (
        before_step(2, sending(signal.SIGTERM)),
        pytest.raises(
            Stopped, match=r"after step 3; resume with: uda.train\(\.\.\., resume=True\)$"
        ),
    ):
        run_to_end(experiment_of(toy_root), tmp_path / "run")


def test_a_second_signal_ends_the_process_unless_it_is_the_same_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torchrun passes on within an instant what a scheduler has sent to all."""
    sent: list[tuple[int, int]] = []
    now = [100.0]
    monkeypatch.setattr(os, "kill", lambda *to: sent.append(to))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Stop()
    stop.begin_steps()
    assert not stop.agreed()
    for now[0] in (100.0, 100.5):
        stop.hear(signal.SIGTERM, None)
    assert stop.agreed()
    assert sent == []
    now[0] = 101.5
    stop.hear(signal.SIGINT, None)
    assert sent == [(os.getpid(), signal.SIGINT)]


@pytest.mark.slow
def test_control_c_in_a_terminal_and_a_second_run(
    toy_root: Path, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal sends SIGINT to loader processes, too: none of them says a word."""
    process = start_group(shell.cwd, str(REPOSITORY / "train_uda.py"), *long_run(toy_root))
    folder = shell.snapshots / "run"
    try:
        wait_for(folder / "resume.previous.pth", process)
        with pytest.raises(InputError) as refusal:
            run_to_end(experiment_of(toy_root), folder, resume=True)
    finally:
        os.killpg(process.pid, signal.SIGINT)
    assert f"{folder} is being written by another process (process {process.pid} on" in str(
        refusal.value
    )
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    last = out.splitlines()[-1]
    step = read(folder / "resume.pth")["step"]
    assert last.startswith(f"stopped by SIGINT after step {step}; resume with: python ")
    python, program, *arguments = shlex.split(last.partition("resume with: ")[2])
    assert (python, program) == ("python", str(REPOSITORY / "train_uda.py"))
    with before_step(step + 1, sending(signal.SIGTERM)), pytest.raises(SystemExit) as end:
        shell.run("train_uda.py", *arguments)
    assert end.value.code == 0
    assert f"stopped by SIGTERM after step {step + 2};" in capsys.readouterr().out


LEAVES_A_LOADER = """
from torch.utils.data import DataLoader
from uda.utilities.loading import leave_signals_to_the_main_process

loader = DataLoader(range(8), num_workers=1, worker_init_fn=leave_signals_to_the_main_process)
left = iter(loader)
print(next(left).item())
"""


def test_a_process_ends_that_has_left_a_loader_running(tmp_path: Path) -> None:
    """Python ends such loaders with SIGTERM and waits: that one signal they have to take."""
    process = start_group(tmp_path, "-c", LEAVES_A_LOADER)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out, error) == (0, "0\n", "")


@pytest.mark.slow
def test_processes_stop_after_the_same_step(toy_root: Path, tmp_path: Path) -> None:
    """One of two hears the signal; torchrun's own status is 0, as theirs are."""
    process = start_group(
        tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--",
        str(REPOSITORY / "train_uda.py"), *long_run(toy_root),
    )  # fmt: skip
    resume = tmp_path / "snapshots/run/resume.pth"
    wait_for(resume, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    step = read(resume)["step"]
    assert f"after step {step}; resume with: torchrun --nproc-per-node 2 -- " in out
    assert out.count("resume with") == 1
