"""Steps with and without a sharded optimizer, in two processes.

    torchrun --nproc-per-node 2 tests/sharded_steps.py DATA FOLDER PRESET ...

Run by test_distributed.py; raises AssertionError when anything differs.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # `experiments`, when run as a script

from tiny_runs import assert_same, tiny_preset
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.experiment import Experiment
from uda.optim.optimizers import OptimizerConfig
from uda.training.run import STUDENT, Run, start_run
from uda.training.step import train_step
from uda.utilities.distributed import is_main, process_group, sum_over_ranks, wait_for_all

STEPS, RESUMED_AT = 4, 2


def new_run(experiment: Experiment, *, sharded: bool) -> Run:
    experiment.train.shard_optimizer = sharded
    return start_run(experiment, num_classes=19, device=torch.device("cpu"))


def make_steps(run: Run, last: int) -> None:
    data = open_training_data(run.experiment.data, seed=0, evaluated="cityscapes")
    size = run.experiment.train.batch_size
    for batch in batches(
        data.dataset, batch_size=size, first_step=run.step, steps=last, workers=0
    ):  # fmt: skip
        train_step(run, batch)


def kept(run: Run) -> int:
    """How many numbers this process's part of the student's optimizer remembers."""
    optimizer = run.optimizers[STUDENT]
    inner = getattr(optimizer, "optim", optimizer)
    return sum(t.numel() for state in inner.state.values() for t in state.values() if t.ndim)


def check(name: str, root: Path, folder: Path, optimizer: OptimizerConfig) -> None:
    experiment = tiny_preset(name, root, steps=STEPS)
    experiment.train.optimizer = optimizer
    whole = new_run(experiment, sharded=False)
    make_steps(whole, STEPS)
    expected = whole.state()

    first = new_run(experiment, sharded=True)
    make_steps(first, RESUMED_AT)
    part, total = kept(first), kept(whole)
    assert sum_over_ranks(torch.tensor(part)) == total, "each number is kept once"
    assert part < 0.7 * total
    state, path = first.state(), folder / f"{name}_{optimizer.name}.pth"
    if is_main():
        torch.save(state, path)
    wait_for_all()
    for sharded in (True, False):  # what the one wrote, both read
        second = new_run(experiment, sharded=sharded)
        second.load_state(torch.load(path, weights_only=True))
        make_steps(second, STEPS)
        found = second.state()
        if is_main():
            assert_same(found, expected)


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        root, folder = map(Path, sys.argv[1:3])
        for optimizer in (OptimizerConfig(name="adamw", lr=1e-3), OptimizerConfig(lr=1e-3)):
            for name in sys.argv[3:]:
                check(name, root, folder, optimizer)
        print("equal")
