"""Several processes compute what one does: losses, weights, scores, files; and how they end."""

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from processes import finished, torchrun
from shells import CLASS_MIX, Shell, Trained
from tiny_runs import (
    DISTINCT_STEPS,
    REPOSITORY,
    flat,
    metrics,
    start_process,
    tiny_options,
    write_pseudo_labels,
)
from trained_steps import AGAIN, MASKS, RULES, comparable, steps_of
from uda.checkpoints.snapshots import read
from uda.data.pseudo_label_folder import read_manifest
from uda.experiments import load_preset
from uda.utilities import distributed
from uda.utilities.errors import InputError

# --- every objective


def representatives() -> list[str]:
    """Presets that together have every objective, in each kind of what it computes of a batch."""
    seen: set[str] = set()
    chosen = []
    for name in DISTINCT_STEPS:
        kinds = {
            " ".join(
                [type(config).__name__]
                + [
                    str(getattr(config, field, ""))
                    for field in ("discriminator", "loss", "labels", "class_balance")
                ]
                + [str(getattr(config, "hardest", 1.0) < 1)]
            )
            for config in load_preset(name).objectives.values()
        }
        if not kinds <= seen:
            chosen.append(name)
            seen |= kinds
    return chosen


def length(values: dict[str, Tensor]) -> float:
    return sum(float(value.double().square().sum()) for value in values.values()) ** 0.5


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Losses, gradients and state of two runs but for the order of sums."""
    assert [list(step) for step in one["losses"]] == [list(step) for step in two["losses"]]
    for ours, theirs in zip(one["losses"], two["losses"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
    assert two["label_free"] == one["label_free"], "bit by bit: the weights are still the same"
    assert_same_counts(one["counts"], two["counts"])
    gradients, others = one["gradients"], two["gradients"]
    used = {name for name, gradient in gradients.items() if gradient is not None}
    assert used == {name for name, gradient in others.items() if gradient is not None}
    for network in {name.split(".")[0] for name in used}:
        own = {name: gradients[name] for name in used if name.split(".")[0] == network}
        # A pixel that is just among the hardest in one sum and just not in another weighs 1e-3.
        assert length({n: g - others[n] for n, g in own.items()}) < 1e-2 * length(own), network
    for part in ("student", "teacher", "objectives"):
        left, right = flat(one[part]), flat(two[part])
        assert left.keys() == right.keys()
        for leaf, value in left.items():
            if isinstance(value, Tensor):
                # 1e-5 on some processors; on others sums of few small terms differ by twice that.
                torch.testing.assert_close(right[leaf], value, rtol=1e-4, atol=5e-5)


def assert_same_counts(one: list[dict[str, Tensor]], two: list[dict[str, Tensor]]) -> None:
    """What monitors count, of all processes' pixels, but for those on the brink of another class
    or of being sure enough."""
    assert [list(step) for step in one] == [list(step) for step in two]
    for ours, theirs in zip(one, two, strict=True):
        for name, counts in ours.items():
            assert theirs[name].sum() > 0, name
            if name == "source":
                assert torch.equal(theirs[name], counts)
            changed = int((theirs[name] - counts).abs().sum())
            assert changed <= 0.01 * int(counts.sum()) + 2, f"{name}: {counts}, {theirs[name]}"


def assert_auxiliary_head_is_averaged(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Entropy reads the main head on the target, last; the auxiliary head learns on the source."""
    ours, theirs = one["gradients"], two["gradients"]
    heads = [n for n in ours if n.startswith("student.auxiliary.") and n.endswith("weight")]
    assert heads
    for name in heads:
        scale = float(ours[name].abs().max())
        assert scale > 0
        torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=1e-3 * scale)


@pytest.mark.slow
def test_two_processes_compute_the_steps_of_one(toy_root: Path, tmp_path: Path) -> None:
    """Of every objective, with batch norm in training: its statistics, too, are of the whole batch.

    One test, because starting processes takes longer than all the steps.
    """
    presets = [*representatives(), AGAIN, *RULES]
    if find_spec("transformers") is not None:
        presets.append(MASKS)
    write_pseudo_labels(toy_root.parent / "pseudo_labels", toy_root)
    job = torchrun("tests/trained_steps.py", str(toy_root), str(tmp_path / "two.pt"), *presets)
    experiments = {name: comparable(name, toy_root) for name in presets}
    experiments[AGAIN].model.encoder.checkpointing = False  # type: ignore[attr-defined]
    ones = {name: steps_of(experiment) for name, experiment in experiments.items()}
    finished(job)
    twos: dict[str, dict[str, Any]] = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, one in ones.items():
        try:
            assert_same(one, twos[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    (entropy,) = [name for name in presets if name.endswith("_entropy")]
    assert_auxiliary_head_is_averaged(ones[entropy], twos[entropy])


@pytest.mark.slow
def test_a_sharded_optimizer_keeps_half_and_computes_the_same_bits(
    toy_root: Path, tmp_path: Path
) -> None:
    """Also after a resume, with or without shards: the file is that of any run."""
    presets = ["toy_class_mix", "gc_640x360_b2_adversarial"]
    job = torchrun("tests/sharded_steps.py", str(toy_root), str(tmp_path), *presets)
    assert finished(job) == "equal\n"


# --- the commands


@pytest.mark.slow
def test_scores_and_pictures_are_those_of_one_process(
    trained: Trained, shell: Shell, toy_root: Path
) -> None:
    """Three images on two processes: none is seen twice, none is left out, no bit differs."""
    common = ["--restore-from", str(trained.snapshot), "--device", "cpu", "--workers", "0"]
    scoring = [*common, "--sets", "miou16_restricted", "--boundary", "--json"]
    labeling = [*common, "--threshold", "0.06", "--output"]
    predicting = [*common, "--images", str(toy_root / "GTA5/images"), "--output"]
    jobs = [
        torchrun(str(REPOSITORY / "eval_single.py"), *scoring, "two.json", cwd=shell.cwd),
        torchrun(str(REPOSITORY / "pseudo_label.py"), *labeling, "two", cwd=shell.cwd),
        torchrun(str(REPOSITORY / "predict.py"), *predicting, "both", cwd=shell.cwd),
    ]
    shell.run("eval_single.py", *scoring, "one.json")
    shown = shell.run("pseudo_label.py", *labeling, "one")
    predicted = shell.run("predict.py", *predicting, "alone")
    outputs = [finished(job) for job in jobs]
    assert outputs[0].count("===> mIoU") == 1, "one process prints"
    assert outputs[2].replace("folder: both", "folder: alone") == predicted
    alone = {p.relative_to(shell.cwd / "alone"): p.read_bytes()
             for p in (shell.cwd / "alone").rglob("*") if p.is_file()}  # fmt: skip
    assert len(alone) == 6 * 4 + 2
    assert all((shell.cwd / "both" / name).read_bytes() == data for name, data in alone.items())
    assert outputs[1].replace("folder: two", "folder: one") == shown
    assert (shell.cwd / "two.json").read_text() == (shell.cwd / "one.json").read_text()
    ones = sorted((shell.cwd / "one").iterdir())
    twos = sorted((shell.cwd / "two").iterdir())
    assert [path.name for path in ones] == [path.name for path in twos]
    assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in twos]
    assert read_manifest(shell.cwd / "two").image_count == 6


def children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listed.split()]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_job_which_one_process_resumes(
    toy_root: Path, tmp_path: Path
) -> None:
    """Killed after a few steps of two processes, resumed in one: the run of one process."""
    options = [*CLASS_MIX, *tiny_options(toy_root), "--set", "model.dropout=0",
               "--set", "train.optimizer.name=sgd", "--set", "train.optimizer.lr=0.001",
               "--set", "train.steps=30", "--set", "train.resume_every=1"]  # fmt: skip
    command = str(REPOSITORY / "train_uda.py")
    job = torchrun(command, *options, "--run", "killed", cwd=tmp_path)
    alone = start_process(tmp_path, "train_uda.py", *options, "--run", "alone")
    resume = tmp_path / "snapshots/killed/resume.pth"
    while not resume.exists() or read(resume)["step"] < 3:
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    os.kill(children(job.pid)[-1], signal.SIGKILL)
    _, error = job.communicate(timeout=60)
    assert job.returncode != 0
    lost = [line for line in error.splitlines() if line.startswith("error: rank 0 lost")]
    assert len(lost) <= 1  # torchrun may have ended it first
    assert lost or "SIGTERM" in error
    assert "SIGKILL" in error
    step = read(resume)["step"]
    assert 3 <= step < 30
    out, _ = start_process(
        tmp_path, "train_uda.py", *options, "--run", "killed", "--resume"
    ).communicate(timeout=120)
    assert f"steps            {step} to 30, on cpu\n" in out
    alone.communicate(timeout=120)
    resumed, undisturbed = (
        {line["step"]: line for line in metrics(tmp_path / "snapshots" / run) if "lr" in line}
        for run in ("killed", "alone")
    )
    assert resumed.keys() == undisturbed.keys() == set(range(1, 31))
    for number, line in undisturbed.items():
        assert resumed[number] == pytest.approx(line, rel=1e-3, abs=1e-6), number


# --- the pieces, alone


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    values = torch.tensor([3, 4])
    assert distributed.mean_over_ranks(values) is values
    assert distributed.sum_over_ranks(values) is values
    assert distributed.of_all_ranks(values) is values
    assert distributed.any_of("why") == "why"
    assert list(distributed.own_batch(4)) == [0, 1, 2, 3]
    with distributed.process_group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert not torch.distributed.is_initialized()


def test_each_rank_has_its_own_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares, batches = [], []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(list(distributed.own_share(range(8))))
        batches.append(list(distributed.own_batch(6)))
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert batches == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(InputError, match=r"train.batch_size is 4, .* but there are 3: use a mult"):
        distributed.check_batch_size(4)


def test_processes_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.local_device("cuda") == "cuda:1"
    assert distributed.local_device("cpu") == "cpu"
    with pytest.raises(InputError, match=r"--device cuda:0: 2 processes on this machine need one "):
        distributed.local_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"there are 1; use as many .torchrun"):
        distributed.local_device("cuda")


@pytest.mark.parametrize("name", ["meta", "", "hpu", "cpu:x", "cuda:99999999999", "nothing"])
def test_devices_that_cannot_be_computed_on(name: str) -> None:
    with pytest.raises(InputError, match=rf"^--device {name}: .*; allowed: cpu, cuda, cuda:N$"):
        distributed.device_named(name)
