"""Learning rates that follow cosines or what a run comes to, against torch's own schedulers."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau

from interruptions import kill_once_there
from processes import finished, torchrun
from tiny_runs import (
    CPU,
    REPOSITORY,
    assert_same,
    interrupt,
    metrics,
    start_process,
    tiny_model,
    tiny_preset,
)
from uda.checkpoints.snapshots import read
from uda.experiment import Experiment, TrainConfig, validate
from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import Plateau, PlateauConfig
from uda.optim.schedules import CosineRestartsConfig, cosine_restarts_factor
from uda.training.loop import train
from uda.utilities.errors import InputError

WATCHED = (0.5, 0.5, 0.6, 0.60003, 0.6, 0.55, 0.7, 0.2, 0.2, float("nan"), 0.2, 0.2, 0.69, 0.71)


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


@pytest.mark.parametrize(("period", "growth", "floor"), [(1, 1, 0.0), (7, 1, 0.25), (3, 2, 0.1)])
def test_cosines_are_those_of_torch(period: int, growth: int, floor: float) -> None:
    optimizer = sgd()
    theirs = CosineAnnealingWarmRestarts(optimizer, period, growth, eta_min=0.1 * floor)
    config = CosineRestartsConfig(period=period, growth=growth, floor=floor)
    for step in range(50):
        ours = 0.1 * cosine_restarts_factor(step, config)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_cosines_by_hand() -> None:
    config = CosineRestartsConfig(period=4, growth=2, floor=0.2)
    found = [cosine_restarts_factor(step, config) for step in (0, 2, 4, 8, 12)]
    assert found == pytest.approx([1.0, 0.6, 1.0, 0.6, 1.0])


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.2])
@pytest.mark.parametrize("watches", ["miou", "loss"])
def test_the_plateau_is_that_of_torch(watches: str, patience: int, threshold: float) -> None:
    optimizer = sgd()
    mode = "max" if watches == "miou" else "min"
    theirs = ReduceLROnPlateau(optimizer, mode, 0.5, patience, threshold)  # type: ignore[arg-type]
    config = PlateauConfig(patience=patience, factor=0.5, threshold=threshold)
    config.watches = "miou" if watches == "miou" else "loss"
    ours = Plateau(config)
    for value in WATCHED:
        theirs.step(value)
        ours.add([torch.tensor(value, dtype=torch.float64)])
        ours.observe(value)
        assert 0.1 * ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])


def test_the_loss_watched_is_the_mean_since_the_last_evaluation() -> None:
    plateau = Plateau(PlateauConfig(watches="loss"))
    plateau.add([torch.tensor(1.0), torch.tensor(2.0)])  # two terms of one step
    plateau.add([torch.tensor(5.0)])
    assert plateau.observe(0.9) == 4.0
    plateau.add([torch.tensor(7.0)])
    assert plateau.observe(0.9) == 7.0
    assert (plateau.best, plateau.bad) == (4.0, 1)


def test_a_plateau_goes_on_where_it_was() -> None:
    config = PlateauConfig(patience=1, factor=0.5)
    whole, begun, resumed = Plateau(config), Plateau(config), Plateau(config)
    losses = [torch.tensor(value) for value in (0.3, 0.1, 0.7, 0.2, 0.9)]
    for plateau in (whole, begun):
        plateau.add(losses[:1])
        plateau.observe(0.0)
        plateau.add(losses[1:2])
        plateau.add(losses[2:3])
    resumed.load_state(begun.state())
    for plateau in (whole, resumed):
        plateau.add(losses[3:4])
        plateau.observe(0.0)
        plateau.add(losses[4:])
    assert whole.state() == resumed.state()


# --- in runs


def scheduled(root: Path, *, steps: int = 12) -> Experiment:
    """A plateau for 8 steps, asked every 2, then cosines of 3 steps."""
    experiment = tiny_preset("toy_source_only", root, steps=steps)
    settings = experiment.train
    settings.optimizer = OptimizerConfig(name="radam", lr=0.01)
    settings.warmup_steps, settings.backbone_lr_factor, settings.head_lr_factor = 0, 1.0, 1.0
    # Nothing is so much better than the best.
    settings.plateau = PlateauConfig(patience=0, factor=0.5, threshold=0.9)
    settings.cosine_restarts = CosineRestartsConfig(period=3, from_step=8)
    settings.resume_every = experiment.evaluation.every = 2
    settings.power = TrainConfig(steps=0, batch_size=1).power
    return experiment


def rates(folder: Path) -> list[float]:
    return [line["lr"] / 0.01 for line in metrics(folder) if "lr" in line]


def test_a_run_follows_the_plateau_and_then_the_cosines(toy_root: Path, tmp_path: Path) -> None:
    train(scheduled(toy_root), tmp_path, preset="p", device=CPU)
    # Evaluations after steps 2 (the best), 4 and 6 (both worse), the cosines from step 8 on.
    assert rates(tmp_path) == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 1, 0.75, 0.25, 1])
    seen = [line for line in metrics(tmp_path) if "plateau/loss" in line]
    assert [line["step"] for line in seen] == [2, 4, 6]
    assert [line["plateau/factor"] for line in seen] == [1, 0.5, 0.25]
    losses = [line["loss/supervised/main"] for line in metrics(tmp_path) if "lr" in line]
    assert seen[0]["plateau/loss"] > losses[0] / 2  # all terms of two steps, their mean


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plateau": None}, "from_step is 8; allowed: 0, or"),
        ({"cosine_restarts": CosineRestartsConfig(period=2)}, "from_step is 0; allowed"),
        ({"cosine_restarts": CosineRestartsConfig(period=2, from_step=12)}, "must be below the ru"),
        ({"cosine_restarts": CosineRestartsConfig(period=0, from_step=8)}, "period is 0"),
        ({"plateau": PlateauConfig(patience=2)}, "could change the rate at step 8 at the earliest"),
        ({"plateau": PlateauConfig(factor=1.0, patience=0)}, "factor is 1.0; allowed"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    toy_root: Path, changes: dict[str, object], message: str
) -> None:
    experiment = scheduled(toy_root)
    for name, value in changes.items():
        setattr(experiment.train, name, value)
    with pytest.raises(InputError, match=message):
        validate(experiment)


@pytest.mark.parametrize(
    ("name", "value"),
    [("power", 0.5), ("final_lr_factor", 0.1), ("schedule_steps", 50), ("warmup_steps", 1)],
)
def test_of_the_polynomial_decay_nothing_is_used(toy_root: Path, name: str, value: float) -> None:
    experiment = scheduled(toy_root)
    setattr(experiment.train, name, value)
    (remark,) = validate(experiment).remarks
    assert remark.startswith(f"train.{name} ({value}) is not used, as it belongs to the polynomial")
    with pytest.raises(InputError, match=f"{name} is set, but is not used"):
        validate(experiment, typed=[f"train.{name}"])
    short = scheduled(toy_root, steps=9)
    short.train.plateau = PlateauConfig(patience=2)
    (remark,) = validate(short, typed=["train.steps"]).remarks
    assert remark.endswith("but ends at 8: it will not act")


def test_scores_of_a_target_do_not_choose_the_rate(toy_root: Path) -> None:
    experiment = tiny_preset("toy_entropy", toy_root)
    experiment.train.power, experiment.train.warmup_steps = 0.9, 0
    experiment.train.plateau = PlateauConfig(watches="miou", patience=0)
    experiment.evaluation.every = 2
    with pytest.raises(InputError, match="watches is miou, which would choose the learning rate"):
        validate(experiment)
    experiment.train.plateau.watches = "loss"
    validate(experiment)


def adapting(root: Path) -> Experiment:
    """Beside the source's labels, entropy of the target from step 4 on, under a plateau."""
    experiment = tiny_preset("toy_entropy", root, steps=8)
    experiment.train.power, experiment.train.warmup_steps = 0.9, 0
    experiment.train.unlabeled_images = 0
    experiment.train.plateau = PlateauConfig(patience=0, factor=0.5)
    experiment.evaluation.every = 2
    experiment.objectives["entropy"].start_step = 4
    experiment.objectives["entropy"].weight = 100.0
    return experiment


def test_only_the_loss_on_fixed_labels_is_watched(toy_root: Path, tmp_path: Path) -> None:
    """What joins late or moves its own goal says nothing of whether the network still learns."""
    train(adapting(toy_root), tmp_path, preset="p", device=CPU)
    lines = metrics(tmp_path)
    losses = [
        sum(value for name, value in line.items() if name.startswith("loss/supervised/"))
        for line in lines
        if "lr" in line
    ]
    seen = [line["plateau/loss"] for line in lines if "plateau/loss" in line]
    assert seen == pytest.approx([sum(losses[n : n + 2]) / 2 for n in (0, 2, 4)])
    assert lines[-1]["step"] == 8
    assert any(name.startswith("loss/entropy/") for line in lines for name in line)


def test_a_loss_that_cannot_be_watched_is_refused(toy_root: Path) -> None:
    late, without = adapting(toy_root), adapting(toy_root)
    late.objectives["supervised"].start_step, late.objectives["entropy"].start_step = 2, 0
    with pytest.raises(InputError, match=r"watches is loss, .* 'supervised' joins at step 2"):
        validate(late)
    del without.objectives["supervised"]
    without.objectives["entropy"].start_step, without.data.source = 0, None
    without.model = tiny_model(auxiliary_head=False)
    with pytest.raises(InputError, match=r"watches is loss, .* no objective of this preset"):
        validate(without)


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 7])
def test_interrupted_and_resumed_equals_straight(at: int, toy_root: Path, tmp_path: Path) -> None:
    """From a state that was saved between two evaluations, and from one saved at one."""
    experiment = scheduled(toy_root)
    experiment.train.resume_every = 3
    train(experiment, tmp_path / "straight", preset="p", device=CPU)
    interrupt(experiment, tmp_path / "cut", at=at)
    train(experiment, tmp_path / "cut", preset="p", device=CPU, resume=True)
    states = [read(tmp_path / name / "resume.pth") for name in ("straight", "cut")]
    assert_same(*states)
    assert states[0]["training"]["plateau"]["factor"] == 0.25
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "cut")


def test_the_sum_of_losses_survives_a_resume(toy_root: Path, tmp_path: Path) -> None:
    """A state is saved in the middle between two evaluations."""
    experiment = scheduled(toy_root)
    experiment.train.resume_every, experiment.train.snapshot_every = 3, 3
    experiment.train.steps = 11
    experiment.evaluation.every = 2
    train(experiment, tmp_path, preset="p", device=CPU)
    previous = read(tmp_path / "resume.previous.pth")
    assert previous["step"] == 9
    kept = previous["training"]["plateau"]
    assert kept["losses"] == 2, "of steps 7 and 8: what comes after is the cosines'"
    assert kept["loss"] > 0


# A preset in a file of its own, whose plateau leaves a trace for each process.
OWN = """
from pathlib import Path
from test_plateau import scheduled
from uda.experiment import Experiment
from uda.utilities.distributed import rank
from uda.optim.plateau import Plateau

original = Plateau.observe

def observe(self, miou):
    seen = original(self, miou)
    with Path("{folder}", f"rank_{{rank()}}").open("a") as file:
        print(seen, self.best, self.bad, self.factor, file=file)
    return seen

Plateau.observe = observe

def own() -> Experiment:
    return scheduled(Path("{root}"))
"""


def own_preset(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of train_uda.py for `scheduled`."""
    (folder / "own.py").write_text(OWN.format(root=root, folder=folder))
    folders = (REPOSITORY, *(REPOSITORY / name for name in ("scripts", "tests", "tests/optim")))
    monkeypatch.setenv("PYTHONPATH", ":".join(str(folder) for folder in folders))
    return ["--preset", f"{folder / 'own.py'}:own", "--device", "cpu"]


@pytest.mark.slow
def test_a_killed_process_is_taken_up_where_it_was(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = own_preset(toy_root, tmp_path, monkeypatch)
    killed = start_process(tmp_path, "train_uda.py", *options, "--run", "killed")
    resume_file = tmp_path / "snapshots/killed/resume.pth"
    kill_once_there(resume_file, killed)
    assert read(resume_file)["step"] < 8, "it died under the plateau"
    train(scheduled(toy_root), tmp_path / "straight", preset="own", device=CPU)
    resumed = start_process(tmp_path, "train_uda.py", *options, "--run", "killed", "--resume")
    assert resumed.communicate(timeout=60)[1] == ""
    state, other = read(resume_file), read(tmp_path / "straight/resume.pth")
    other["preset"] = state["preset"]
    assert_same(state, other)
    assert metrics(tmp_path / "snapshots/killed") == metrics(tmp_path / "straight")


@pytest.mark.slow
def test_two_processes_come_to_one_rate(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = own_preset(toy_root, tmp_path, monkeypatch)
    finished(torchrun(str(REPOSITORY / "train_uda.py"), *options, cwd=tmp_path))
    traces = [(tmp_path / f"rank_{rank}").read_text() for rank in (0, 1)]
    assert traces[0] == traces[1]
    assert [line.split()[-1] for line in traces[0].splitlines()] == ["1.0", "0.5", "0.25"]


def test_a_resume_file_without_the_plateau_is_refused(toy_root: Path, tmp_path: Path) -> None:
    train(scheduled(toy_root), tmp_path, preset="p", device=CPU)
    for damage in (None, {"best": 1.0}, {"best": "x", "bad": 0, "factor": 1.0, "loss": 0.0,
                                         "losses": 0}):  # fmt: skip
        values = read(tmp_path / "resume.pth")
        values["training"]["plateau"] = damage
        torch.save(values, tmp_path / "damaged.pth")
        with pytest.raises(InputError, match=r"damaged\.pth is damaged|no state of the plateau"):
            train(
                scheduled(toy_root), tmp_path / "other", preset="p", device=CPU,
                resume=tmp_path / "damaged.pth",
            )  # fmt: skip


def test_a_resumed_run_keeps_its_evaluation(toy_root: Path, tmp_path: Path) -> None:
    """Which the plateau is asked at."""
    experiment = scheduled(toy_root)
    train(experiment, tmp_path, preset="p", device=CPU)
    experiment.evaluation.every = 3
    with pytest.raises(InputError, match=r"other values of evaluation\.every"):
        train(experiment, tmp_path, preset="p", device=CPU, resume=True)
