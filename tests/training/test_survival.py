"""Nothing is lost: signals, kills, full disks, damaged files, two runs at once, losses of NaN."""

import json
import math
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import torture
from shells import CLASS_MIX, Shell
from tiny_runs import (
    CPU,
    REPOSITORY,
    assert_same,
    metrics,
    steps,
    tiny_options,
    tiny_preset,
    tiny_run,
)
from trials import kinds
from uda.checkpoints.snapshots import read
from uda.data.batch import Batch, View
from uda.evaluation import inference
from uda.experiment import Experiment, validate
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.supervised import Supervised
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.run import Run, StepResult
from uda.training.signals import Stop, Stopped
from uda.training.step import train_step
from uda.training.tracking import Tracker
from uda.utilities.errors import InputError, WriteError


def experiment_of(toy_root: Path) -> Experiment:
    """Class mix for 6 steps that saves and evaluates after each second one."""
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.train.resume_every = experiment.train.snapshot_every = 2
    experiment.evaluation.every = 2
    return experiment


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool | Path = False) -> None:
    train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def files(folder: Path) -> dict[str, Any]:
    """What a finished run has computed."""
    snapshots = {path.name: read(path) for path in folder.glob("*.pth")}
    snapshots.pop("resume.previous.pth", None)
    return {"metrics": metrics(folder)} | snapshots


@pytest.fixture(scope="module")
def undisturbed(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    run_to_end(experiment_of(toy_root), folder)
    return files(folder)


@contextmanager
def before_step(number: int, act: Any) -> Iterator[None]:  # noqa: ANN401
    """Calls `act` when update `number`, from 0, is about to be made."""
    original = train_step

    def step(run: Run, batch: Batch) -> StepResult:
        if run.step == number:
            act()
        return original(run, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_step", step)
        yield


def sending(number: signal.Signals) -> Any:  # noqa: ANN401
    return lambda *_, **__: os.kill(os.getpid(), number)


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_the_run_goes_on(
    number: signal.Signals, toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Step 3 of 6 is under way: it is made, saved, and not made again."""
    before = signal.getsignal(number)
    with before_step(2, sending(number)), pytest.raises(Stopped, match=rf"{number.name} after ste"):
        run_to_end(experiment_of(toy_root), tmp_path / "run")
    assert signal.getsignal(number) is before
    assert read(tmp_path / "run/resume.pth")["step"] == 3
    run_to_end(experiment_of(toy_root), tmp_path / "run", resume=True)
    assert_same(files(tmp_path / "run"), undisturbed)


def test_an_evaluation_that_a_signal_cuts_off_is_made_up_for(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 4, after one of three images; and again while it is made up for."""
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
        assert len(seen) == 8, "the other images are not looked at"
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


def test_a_second_signal_ends_the_process_unless_it_is_the_same_wish(
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


def long_run(toy_root: Path, *more: str) -> list[str]:
    sets = [part for setting in ("train.steps=4000", "train.resume_every=2", "data.workers=1")
            for part in ("--set", setting)]  # fmt: skip
    return [*CLASS_MIX, *tiny_options(toy_root), *sets, "--run", "run", *more]


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_group(cwd: Path, *command: str) -> "subprocess.Popen[str]":
    """A command of this Python that leads a group of processes, as one in a terminal does."""
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


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


# --- disks and files


@contextmanager
def room_for(size: int) -> Iterator[Callable[[], None]]:
    """What it gives makes the system refuse, until the end, all beyond `size` bytes of a file, as a
    full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("room", "first"), [(600_000, r"GTA5_4\.pth"), (100_000, "tensorboard")])
def test_a_full_disk_costs_the_steps_since_the_last_save(
    room: int, first: str, toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    with (
        room_for(room) as disk_fills,
        before_step(3, disk_fills),
        pytest.raises(WriteError, match=rf"{first} cannot be written \(File too large; \d+ MiB f"),
    ):
        run_to_end(experiment_of(toy_root), folder)
    assert read(folder / "resume.pth")["step"] == read(folder / "GTA5_2.pth")["step"] == 2
    assert not list(folder.glob("*.partial"))
    run_to_end(experiment_of(toy_root), folder, resume=True)
    assert_same(files(folder), undisturbed)


def test_a_full_disk_is_told_of_when_records_do_not_fit(tmp_path: Path) -> None:
    """/dev/full is a disk without room."""
    with Tracker(tmp_path, name="run", steps=9, first_step=0, batch_size=2) as tracker:
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(WriteError, match=r"metrics\.jsonl cannot be written \(No space left"):
            tracker.log(1, {"loss/a/main": torch.tensor(1.0)}, lr=0.5)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    toy_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run cannot be written \(Not a directory;"):
        run_to_end(experiment_of(toy_root), tmp_path / "file/run")


def test_records_of_a_run_survive_a_resume_that_dies_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rewritten without the lines beyond the resumed step: whole, or not at all."""
    lines = "".join(json.dumps({"step": step}) + "\n" for step in range(9))
    (tmp_path / "metrics.jsonl").write_text(lines)

    def dies(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        Tracker(tmp_path, name="run", steps=9, first_step=4, batch_size=2)
    assert (tmp_path / "metrics.jsonl").read_text() == lines


def stopped_after(step: int, experiment: Experiment, folder: Path) -> Path:
    """The folder of a run that a signal has ended."""
    with before_step(step - 1, sending(signal.SIGTERM)), pytest.raises(Stopped):
        run_to_end(experiment, folder)
    return folder


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_resume_file_costs_the_steps_since_the_one_before(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_after(5, experiment_of(toy_root), tmp_path / "run")
    for name in ("GTA5_6.pth.partial", "resume.pth.partial"):
        (folder / name).write_bytes(b"half of a fi")
    (folder / "pseudo_labels.partial").mkdir()  # of a killed pseudo_label.py, or of one that runs
    cut_short(folder / "resume.pth")
    capsys.readouterr()
    run_to_end(experiment_of(toy_root), folder, resume=True)
    out = capsys.readouterr().out
    assert f"{folder}/resume.pth cannot be read" in out
    assert f"going on from {folder}/resume.previous.pth" in out
    assert "steps            4 to 6, on cpu" in out
    assert_same(files(folder), undisturbed)
    assert [path.name for path in folder.glob("*.partial")] == ["pseudo_labels.partial"]


def test_a_kill_between_two_names_leaves_the_previous_file(toy_root: Path, tmp_path: Path) -> None:
    folder = stopped_after(5, experiment_of(toy_root), tmp_path / "run")
    (folder / "resume.pth").unlink()
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        run_to_end(experiment_of(toy_root), folder)
    cut_short(folder / "resume.previous.pth")
    with pytest.raises(InputError, match=r"resume\.previous\.pth cannot be read"):
        run_to_end(experiment_of(toy_root), folder, resume=True)


def test_a_run_goes_on_from_a_copy(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = stopped_after(3, experiment_of(toy_root), tmp_path / "run")
    (tmp_path / "kept").mkdir()
    shutil.copy(folder / "resume.pth", tmp_path / "kept")
    for copy in (tmp_path / "kept", tmp_path / "kept/resume.pth"):
        with pytest.raises(InputError, match="holds a run of its own: --resume without a path"):
            run_to_end(experiment_of(toy_root), folder, resume=copy)
    with pytest.raises(
        InputError, match=r"GTA5_2\.pth is a snapshot to evaluate, without the stat"
    ):
        run_to_end(experiment_of(toy_root), folder, resume=folder / "GTA5_2.pth")
    run_to_end(experiment_of(toy_root), tmp_path / "other", resume=tmp_path / "kept")
    other = files(tmp_path / "other")
    for name in ("GTA5_6.pth", "resume.pth"):
        assert_same(other[name], undisturbed[name])
    run_to_end(experiment_of(toy_root), folder, resume=folder / "resume.previous.pth")
    assert_same(files(folder), undisturbed)


# --- losses that are not finite


@contextmanager
def poisoned(*numbers: int) -> Iterator[list[Tensor]]:
    """The supervised loss of updates `numbers`, from 0, is NaN; their images, when they come."""
    original = Supervised.terms
    images: list[Tensor] = []

    def terms(
        self: Supervised, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        found = original(self, view, output, context)
        if context.step not in numbers:
            return found
        images.append(view.images)
        return {name: value * math.nan for name, value in found.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervised, "terms", terms)
        yield images


def test_a_loss_that_is_not_finite_is_told_with_its_own_step_and_batch(
    toy_root: Path, tmp_path: Path
) -> None:
    """Although losses are read two steps later."""
    experiment = experiment_of(toy_root)
    experiment.train.log_every = experiment.train.resume_every = 100
    experiment.train.snapshot_every = 5
    with poisoned(2) as images, pytest.raises(FloatingPointError) as stopped:
        run_to_end(experiment, tmp_path / "run")
    message = str(stopped.value)
    assert "not finite at step 3: loss/supervised/main nan, " in message
    assert "loss/class_mix/main" in message
    path = tmp_path / "run/nonfinite/step_3.pth"
    batch = torch.load(path, weights_only=True)
    assert f"its batch, in {path} (and .png): source {', '.join(batch['source_names'])}" in message
    assert len(batch["target_names"]) == 2
    assert all(name in message for name in batch["target_names"])
    assert torch.equal(batch["source_images"] / 255, images[0].cpu())
    assert math.isnan(batch["losses"]["loss/supervised/main"])
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.width > 3 * 128
    assert not list((tmp_path / "run").glob("*.pth")), "nothing that it poisoned is saved"


def test_a_step_that_is_not_finite_moves_nothing(toy_root: Path) -> None:
    experiment = tiny_preset("toy_aagc_student", toy_root)
    experiment.train.skip_nonfinite = 1
    run = tiny_run(experiment)
    steps(run, 1)
    before = {part: {n: t.clone() for n, t in state.items()} for part, state in networks(run)}
    with poisoned(1):
        (result,) = steps(run, 1)
    assert result.skipped
    assert (run.step, run.skipped) == (2, 1)
    assert_same(dict(networks(run)), before)
    assert not steps(run, 1)[0].skipped


def networks(run: Run) -> list[tuple[str, dict[str, Any]]]:
    return [(str(place), network.state_dict()) for place, network in enumerate(run.networks())]


def test_as_many_steps_are_skipped_as_were_allowed(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a resumed run remembers how many there were."""
    experiment = experiment_of(toy_root)
    experiment.train.skip_nonfinite = 2
    with poisoned(1, 4):
        run_to_end(experiment, tmp_path / "straight")
        stopped_after(3, experiment, tmp_path / "resumed")
        run_to_end(experiment, tmp_path / "resumed", resume=True)
    out = capsys.readouterr().out
    assert "skipped, 2 of at most 2: a loss is not finite at step 5: loss/superv" in out
    assert_same(files(tmp_path / "resumed"), files(tmp_path / "straight"))
    skipped = [line for line in metrics(tmp_path / "straight") if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [(2, 1), (5, 2)]
    assert "loss/supervised/main nan" in skipped[0]["losses"]
    experiment.train.skip_nonfinite = 1
    with (
        poisoned(1, 4),
        pytest.raises(FloatingPointError, match=r"step 5.*--skip-nonfinite 1 is u"),
    ):
        run_to_end(experiment, tmp_path / "one")
    assert read(tmp_path / "one/resume.pth")["step"] == 4


_POISON_ON_ONE_RANK = """
import runpy, sys
from uda.utilities.distributed import rank
from uda.objectives.supervised import Supervised
original = Supervised.terms
def terms(self, view, output, context):
    factor = float("nan") if context.step == 1 and rank() == 1 else 1.0
    return {name: value * factor for name, value in original(self, view, output, context).items()}
Supervised.terms = terms
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_processes_skip_the_same_step(toy_root: Path, tmp_path: Path) -> None:
    """NaN on one of two: none moves, and the run goes on to its end."""
    program = f"import sys; sys.argv = sys.argv[1:]\n{_POISON_ON_ONE_RANK}"
    (tmp_path / "poisoned.py").write_text(program)
    job = start_group(
        tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--",
        "poisoned.py", str(REPOSITORY / "train_uda.py"), *CLASS_MIX, *tiny_options(toy_root),
        "--run", "run", "--skip-nonfinite", "1",
    )  # fmt: skip
    out, error = job.communicate(timeout=240)
    assert job.returncode == 0, error
    assert out.count("skipped, 1 of at most 1: a loss is not finite at step 2") == 1
    lines = metrics(tmp_path / "snapshots/run")
    assert [line["step"] for line in lines if "skipped" in line] == [2]
    assert [line["step"] for line in lines if "lr" in line] == [1, 3]
    batch = torch.load(tmp_path / "snapshots/run/nonfinite/step_2.pth", weights_only=True)
    assert len(batch["source_names"]) == 2, "of both processes"


# --- torture


@pytest.mark.parametrize("name", kinds())
def test_every_objective_can_be_tortured(name: str) -> None:
    validate(torture.shrunk(name, Path("folder")))


def test_figures_of_torture() -> None:
    figures = json.loads((REPOSITORY / "docs/torture.json").read_text())
    assert figures["objectives"].keys() <= kinds().keys()
    assert figures["kills"] == sum(one["kills"] for one in figures["objectives"].values()) >= 100
    assert figures["differing_bits"] == 0


def test_bits_are_counted() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": 3}
    assert torture.differing_bits(one, {"a": torch.tensor([1.0, 2.0]), "b": 3}) == 0
    # 1.0 is 0x3f800000, -1.0 is 0xbf800000
    assert torture.differing_bits(one, {"a": torch.tensor([-1.0, 2.0]), "b": 3}) == 1
    assert torture.differing_bits(one, {"a": torch.tensor([1.0]), "b": 3}) == 64
    assert torture.differing_bits(one, {"a": one["a"]}) > 0


@pytest.mark.slow
def test_five_kills_lose_no_bit(tmp_path: Path) -> None:
    """In processes of a program of their own: this one may have threads, which no fork survives."""
    done = start_group(
        tmp_path, str(REPOSITORY / "scripts/torture.py"), "--kills", "5", "--only", "ClassMix",
        "--json", "figures.json",
    )  # fmt: skip
    out, error = done.communicate(timeout=240)
    assert done.returncode == 0, error
    assert out.endswith("5 kills, 0 differing bits\n")
    figures = json.loads((tmp_path / "figures.json").read_text())["objectives"]["ClassMix"]
    assert figures["kills"] == 5
    assert figures["resumed"] > 0
