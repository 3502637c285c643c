"""Snapshots of odd shapes: what is wrong with a file is said in one line, whatever it is."""

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from factories import tiny_snapshot, with_small_discriminators
from tiny_runs import assert_same, tiny_model, tiny_run
from uda.checkpoints.foreign import read_foreign
from uda.checkpoints.snapshots import Snapshot, load, read, save, snapshot_values
from uda.experiments import load_preset
from uda.training.run import Run
from uda.utilities.errors import InputError, shown
from uda.utilities.schema import Plain, fault
from uda.utilities.weight_files import read_weights

RING: dict[str, Any] = {}
RING["ring"] = RING


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return snapshot_values(tiny_snapshot(load_preset("gc_640x360_b2_class_mix")))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("preset", 3, "preset is 3; allowed: text"),
        ("preset", "x" * 5, ""),
        ("experiment", [1], "experiment is a list; allowed: a dict"),
        ("experiment", {"model": {}, "data": {}}, "experiment has no evaluation"),
        ("experiment", {"model": {1: 2}}, "experiment.model is a dict; allowed: numbers and text"),
        ("experiment", RING, "experiment.ring is a dict; allowed: numbers and text"),
        ("label_space", "cityscapes19", "label_space is 'cityscapes19'; allowed: a dict"),
        ("label_space", {"name": "x"}, "label_space has no classes"),
        ("label_space", {"name": "x", "classes": 19}, "label_space.classes is 19; allowed"),
        ("label_space", {"name": "x", "classes": (1,)}, "label_space.classes.0 is 1; allowed"),
        ("step", -1, "step is -1; allowed: a whole number, 0 or more"),
        ("step", True, "step is True; allowed: a whole number"),
        ("step", 10**100, "step is 1000000000000000000000000000000000000000 ... 000"),
        ("step", torch.tensor(7), "step is a Tensor; allowed: a whole number"),
        ("scores", 3, "scores is 3; allowed: a dict"),
        ("scores", {"miou": torch.zeros(2)}, "scores.miou is a Tensor; allowed: numbers and text"),
        ("versions", {"torch": 2}, "versions.torch is 2; allowed: text"),
        ("student", None, "student is None; allowed: a dict"),
        ("student", {"a": 3}, "student.a is 3; allowed: a dense tensor of real numbers"),
        ("student", {3: torch.zeros(1)}, "student has an entry 3; allowed: text"),
        ("student", {"a": torch.zeros(2).to_sparse()}, "student.a is a sparse, complex or empty T"),
        ("student", {"a": torch.zeros(2, device="meta")}, "student.a is a sparse, complex or emp"),
        ("student", {"a": torch.zeros(2, dtype=torch.cfloat)}, "student.a is a sparse, complex"),
        ("teacher", {"a": {}}, "teacher.a is a dict; allowed: a dense tensor of real numbers"),
        ("training", {"objectives": {}}, "training has no optimizers"),
        ("training", {"objectives": {}, "optimizers": {"student": {"state": {}}}, "skipped": 0},
         "training.optimizers.student has no param_groups"),
        ("samples", 3, "samples is 3; allowed: text"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    name: str, value: object, complaint: str, values: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "GTA5_7.pth"
    save(values | {name: value}, path)
    if not complaint:
        assert load(path).preset == value
        return
    for call in (lambda: load(path), lambda: read(path)):
        message = refusal(call)
        assert message.startswith(f"{path} is damaged: {complaint}")
        assert message.endswith("; give another snapshot of that run")


def test_others_may_stand_beside_what_is_known(values: dict[str, Any], tmp_path: Path) -> None:
    save(values | {"more": {"of": torch.zeros(3)}}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth").step == 7


def test_nested_tensors_have_no_shape_to_ask_for(values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # torch says once per process that they are a prototype
        warnings.simplefilter("ignore", UserWarning)
        nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    assert "odd is a sparse, complex or empty Tensor" in fault(nested, torch.Tensor, "odd")
    assert read_foreign({"head.block.2.weight": nested}, origin="x") is None


def test_a_tensor_can_repeat_its_numbers_for_more_classes_than_memory_holds() -> None:
    endless = torch.zeros(()).expand(10**12, 256, 1, 1)
    assert read_foreign({"head.block.2.weight": endless}, origin="x") is None


def test_plain_values_end_somewhere() -> None:
    assert fault({"a": (1, 2.5, None, ["b"])}, Plain) == ""
    deep: object = 0
    for _ in range(30):
        deep = [deep]
    assert "allowed: numbers and text" in fault(deep, Plain)


def test_a_network_that_no_memory_holds_is_refused_before_it_is_built(
    values: dict[str, Any], tmp_path: Path
) -> None:
    model = values["experiment"]["model"] | {"aspp_channels": 8000, "decoder_channels": 8000}
    save(values | {"experiment": values["experiment"] | {"model": model}}, tmp_path / "x.pth")
    found = load(tmp_path / "x.pth")
    assert "tensors do not fit the network of this preset" in refusal(found.build)
    found.experiment["model"]["aspp_channels"] = 10**12
    assert "model.aspp_channels is 1000000000000; allowed: up to 8192" in refusal(found.build)


def test_numbers_of_another_kind_do_not_fit(values: dict[str, Any]) -> None:
    snapshot = tiny_snapshot(load_preset("gc_640x360_b2_source_only"))
    name = next(iter(snapshot.student))
    snapshot.student[name] = snapshot.student[name].long()
    assert f"1 tensors do not fit the network of this preset, e.g. {name}" in refusal(
        snapshot.build
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    call = lambda: read_weights(tmp_path / "pipe.pth", expected="a snapshot", instead="")  # noqa: E731
    assert "pipe.pth is a device or a pipe, not a file: give a snapshot" in refusal(call)


def test_what_cannot_be_written_is_shown_all_the_same() -> None:
    assert shown("a\x1b[2J") == r"'a\x1b[2J'"
    assert shown(10**5000) == "a int that cannot be written"
    assert shown("x" * 1000) == f"'{'x' * 39} ... {'x' * 39}'"


# --- what --resume takes over


def new_run() -> Run:
    """With discriminators of a few channels: a state is copied often."""
    experiment = load_preset("gc_640x360_b2_adversarial")
    experiment.model = tiny_model()
    return with_small_discriminators(tiny_run(experiment))


def trained() -> Run:
    run = new_run()
    for optimizer in run.optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return run


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return trained().state()


def test_a_state_comes_back(state: dict[str, Any]) -> None:
    run = new_run()
    run.load_state(copy.deepcopy(state))
    assert_same(run.state(), state)


def _drop_objective(state: dict[str, Any]) -> None:
    del state["objectives"]["adversarial"]


def _drop_optimizer(state: dict[str, Any]) -> None:
    state["optimizers"] = {"other": state["optimizers"]["student"]}


def _reshape_weight(state: dict[str, Any]) -> None:
    state["student"]["mean"] = torch.zeros(4)


def _reshape_discriminator(state: dict[str, Any]) -> None:
    state["objectives"]["adversarial"]["discriminators.main.conv1.bias"] = torch.zeros(1)


def _drop_group(state: dict[str, Any]) -> None:
    del state["optimizers"]["student"]["param_groups"][0]


def _drop_params(state: dict[str, Any]) -> None:
    del state["optimizers"]["student"]["param_groups"][0]["params"]


def _change_betas(state: dict[str, Any]) -> None:
    state["optimizers"]["adversarial"]["param_groups"][0]["betas"] = "many"


def _drop_average(state: dict[str, Any]) -> None:
    del state["optimizers"]["adversarial"]["state"][0]["exp_avg"]


def _reshape_average(state: dict[str, Any]) -> None:
    state["optimizers"]["adversarial"]["state"][0]["exp_avg"] = torch.zeros(2)


def _move_average(state: dict[str, Any]) -> None:
    entries = state["optimizers"]["student"]["state"]
    entries[10**6] = entries.pop(0)


def _pass_the_end(state: dict[str, Any]) -> None:
    state["step"] = 10**9


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_drop_objective, "resume.pth is damaged: it has the objectives ['supervised'], the run"),
        (_drop_optimizer, "resume.pth is damaged: it has the optimizers ['other'], the run"),
        (_reshape_weight, "resume.pth: 1 tensors do not fit the network of this preset, e.g. mean"),
        (_reshape_discriminator, "resume.pth, adversarial: 1 tensors do not fit the network"),
        (_drop_group, "resume.pth, student: the parameters or settings of its optimizer are not"),
        (_drop_params, "resume.pth, student: the parameters or settings of its optimizer are not"),
        (_change_betas, "resume.pth, adversarial: the parameters or settings of its optimizer are"),
        (_drop_average, "resume.pth, adversarial: its optimizer's state of parameter 0 does"),
        (_reshape_average, "resume.pth, adversarial: its optimizer's state of parameter 0 does"),
        (_move_average, "resume.pth, student: its optimizer's state of parameter 1000000 does"),
        (_pass_the_end, "resume.pth is of step 1000000000; the run has"),
    ],
)
def test_a_state_of_another_run_is_refused(
    damage: Callable[[dict[str, Any]], None], complaint: str, state: dict[str, Any]
) -> None:
    changed = copy.deepcopy(state)
    damage(changed)
    run = new_run()
    assert refusal(lambda: run.load_state(changed)).startswith(complaint)


def test_snapshot_fields_and_schema_are_the_same(values: dict[str, Any]) -> None:
    unsaved = {"report", "given_code", "code"}  # "code" only where a user's file defines classes
    assert {"format", *Snapshot.__dataclass_fields__} - unsaved == set(values)


def test_a_list_that_is_shared_often_is_read_once() -> None:
    shared: object = 0
    for _ in range(18):
        shared = [shared] * 30  # 30**18 values in all
    assert fault(shared, Plain) == ""
