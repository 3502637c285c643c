"""Snapshots and resume.pth: damaged files, other pickles, and values of every shape."""

import copy
import io
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_archive, mutated_bytes
from hypothesis import strategies as st
from torch import Tensor

from factories import tiny_snapshot, with_small_discriminators
from tiny_runs import tiny_run
from uda.checkpoints.recovery import recover_tensors
from uda.checkpoints.snapshots import load, read, snapshot_values
from uda.experiments import load_preset
from uda.training.run import Run


def tiny_resume() -> tuple[Run, dict[str, Any]]:
    """A run, and what its resume.pth holds."""
    experiment = load_preset("gc_640x360_b2_adversarial")
    snapshot = tiny_snapshot(experiment)
    run = with_small_discriminators(tiny_run(experiment))
    for optimizer in run.optimizers.values():
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    state = run.state()
    values = snapshot_values(snapshot) | {"student": state["student"], "samples": "0" * 64}
    return run, values | {
        "training": {n: state[n] for n in ("objectives", "optimizers", "skipped")}
    }


def saved(values: object, *, legacy: bool = False) -> bytes:
    target = io.BytesIO()
    torch.save(values, target, _use_new_zipfile_serialization=not legacy)
    return target.getvalue()


def use(path: Path) -> None:
    """What eval_single.py and pseudo_label.py do with the file."""
    snapshot = load(path)
    snapshot.evaluation.check("evaluation")
    assert snapshot.data is not None
    snapshot.build()
    if snapshot.teacher is not None:
        snapshot.build("teacher")


def resume(path: Path, run: Run) -> None:
    """What --resume does with it."""
    values = read(path)
    if "training" in values:
        run.load_state({n: values[n] for n in ("step", "student", "teacher")} | values["training"])


@pytest.fixture(scope="module")
def parts() -> tuple[Run, dict[str, Any]]:
    return tiny_resume()


@pytest.mark.slow
@both_runs
def test_damaged_snapshots(total: int, tmp_path: Path, parts: tuple[Run, dict[str, Any]]) -> None:
    tally, path = Tally("snapshots, bytes"), tmp_path / "odd.pth"
    run, values = parts
    whole, legacy = saved(values), saved(values, legacy=True)
    for number in range(total * 15 // 100):
        random = Random(number)
        kind = random.random()
        if kind < 0.6:
            content = mutated_archive(whole, random)
        else:
            content = mutated_bytes(whole if kind < 0.8 else legacy, random)
        path.write_bytes(content)
        attempt(
            tally, tmp_path, lambda: use(path), lambda: resume(path, run),
            lambda: recover_tensors(path),
        )  # fmt: skip
    print(tally)


_TENSORS = (
    torch.zeros(()),
    torch.full((3,), float("nan")),
    torch.zeros(2, 3, dtype=torch.complex64),
    torch.zeros(3).to_sparse(),
    torch.zeros(1).expand(10**6, 10**6),
    torch.zeros(0, 5),
    torch.zeros(4, dtype=torch.bool),
    torch.zeros(3, device="meta"),
)
# By number: hypothesis compares what it samples from, which tensors do one by one.
TENSORS = st.integers(0, len(_TENSORS) - 1).map(_TENSORS.__getitem__)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(),
    st.sampled_from([10**400, 2**64, "\x1b[2J", "cityscapes19", -1]), TENSORS,
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=3),
    ),
    max_leaves=5,
)


def paths_of(values: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where a value can be exchanged."""
    items = list(values.items()) if isinstance(values, dict) else []
    if isinstance(values, list | tuple):
        items = list(enumerate(values))
    found = [path] if path else []
    for key, value in items:
        found += paths_of(value, (*path, key))
    return found


def exchanged(values: Any, path: tuple[object, ...], new: object) -> Any:  # noqa: ANN401
    """A copy of nested `values` in which one is `new`; where `new` is a key of theirs, it goes."""
    if not path:
        return new
    if isinstance(values, dict):
        return {**values, path[0]: exchanged(values[path[0]], path[1:], new)}
    return type(values)(
        exchanged(v, path[1:], new) if index == path[0] else v for index, v in enumerate(values)
    )


@pytest.mark.slow
@both_runs
def test_snapshots_of_every_shape(
    total: int, tmp_path: Path, parts: tuple[Run, dict[str, Any]]
) -> None:
    tally, path = Tally("snapshots, values"), tmp_path / "odd.pth"
    run, values = parts
    plain = {n: v for n, v in values.items() if n not in ("student", "teacher", "training")}
    # Most places are tensors of the same two dicts: few of them are enough.
    training = {"training": values["training"]}
    tensors = {n: values[n] for n in ("student",)}
    places = paths_of(plain) * 2 + paths_of(training)[::9] + paths_of(tensors)[::9]

    def check(drawn: tuple[int, object]) -> None:
        seed, new = drawn
        place = Random(seed).choice(places)
        torch.save(exchanged(values, place, new), path)
        attempt(tally, tmp_path, lambda: use(path), lambda: resume(path, run))

    drive(st.tuples(st.integers(0, 10**4), VALUES), check, total // 10)
    print(tally)


@pytest.mark.slow
def test_a_dict_that_holds_itself(tmp_path: Path, parts: tuple[Run, dict[str, Any]]) -> None:
    run, values = parts
    values = copy.copy(values)
    path = tmp_path / "odd.pth"
    for name in values:
        values_in_itself: dict[str, Any] = dict(values)
        values_in_itself[name] = values_in_itself
        torch.save(values_in_itself, path)
        attempt(Tally("rings"), tmp_path, lambda: use(path), lambda: resume(path, run))


def test_the_whole_file_is_accepted(tmp_path: Path, parts: tuple[Run, dict[str, Any]]) -> None:
    run, values = parts
    torch.save(values, tmp_path / "whole.pth")
    use(tmp_path / "whole.pth")
    resume(tmp_path / "whole.pth", run)
    assert isinstance(values["student"], dict)
    assert all(isinstance(tensor, Tensor) for tensor in values["student"].values())
