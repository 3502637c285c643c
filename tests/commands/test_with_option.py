"""--with: what several networks say together, with the facts of all of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import uda
from factories import tiny_snapshot
from shells import Shell, Trained, table
from tiny_runs import tiny_preset
from uda.checkpoints.snapshots import load, save, snapshot_values
from uda.data.pseudo_label_folder import read_manifest
from uda.evaluation.ensembles import Ensemble
from uda.labels.spaces import CITYSCAPES
from uda.utilities.weight_files import sha256

QUICK = ("--workers", "0", "--device", "cpu")


@pytest.fixture
def other(trained: Trained, tmp_path: Path, toy_root: Path) -> Path:
    """A snapshot of another run, that has seen labels of the target."""
    snapshot = tiny_snapshot(tiny_preset("toy_class_mix", toy_root))
    snapshot = replace(snapshot, preset="other", supervision="ground truth (6 images)")
    path = tmp_path / "other" / "GTA5_7.pth"
    path.parent.mkdir()
    save(snapshot_values(snapshot), path)
    return path


def test_scores_and_facts_of_all(
    trained: Trained, other: Path, shell: Shell, toy_root: Path
) -> None:
    both = ("--restore-from", str(trained.snapshot), "--with", str(other))
    output = shell.run("eval_single.py", *both, *QUICK, "--json", "s.json")
    facts = json.loads((shell.cwd / "s.json").read_text())
    assert facts["ensemble"] == "mean of the probabilities of 2 networks"
    assert facts["snapshot"] == f"{trained.snapshot} + {other}"
    assert (facts["preset"], facts["step"]) == ("toy_class_mix + other", "3 + 7")
    assert facts["supervision"] == "none + ground truth (6 images)"
    assert facts["weights"] == "student"
    lines = output.splitlines()
    for name in ("ensemble", "snapshot", "supervision"):
        assert f"{name}: {facts[name]}" in lines
    assert not any("published" in line for line in lines)

    loaded = [uda.load(path) for path in (trained.snapshot, other)]
    found = uda.evaluate(Ensemble(loaded), "cityscapes", data_root=toy_root, device="cpu")
    own = shell.run("eval_single.py", *both, *QUICK, "--protocol", "native")
    assert table(own) == table(str(found))
    of_logits = shell.run("eval_single.py", *both, *QUICK, "--average", "logits")
    assert "ensemble: mean of the logits of 2 networks" in of_logits.splitlines()


def test_pseudo_labels_of_all(trained: Trained, other: Path, shell: Shell) -> None:
    arguments = ("--restore-from", str(trained.snapshot), "--with", str(other), *QUICK)
    output = shell.run("pseudo_label.py", *arguments, "--threshold", "0", "--output", "labels")
    assert "supervision: none + ground truth (6 images)" in output.splitlines()
    manifest = read_manifest(shell.cwd / "labels")
    assert manifest.supervision == "none + ground truth (6 images)"
    assert manifest.snapshot == "GTA5_3.pth + GTA5_7.pth"
    assert manifest.snapshot_sha256 == f"{sha256(trained.snapshot)} + {sha256(other)}"
    assert manifest.protocol.endswith("; mean of the probabilities of 2 networks")


def test_what_is_refused(trained: Trained, other: Path, shell: Shell, tmp_path: Path) -> None:
    first = ("--restore-from", str(trained.snapshot))

    def refused(*arguments: str) -> str:
        return shell.refused("eval_single.py", *first, *QUICK, *arguments)

    again = trained.snapshot.parent / ".." / trained.snapshot.parent.name / trained.snapshot.name
    assert "a second time: name each network once" in refused("--with", str(again))
    assert "error: --with: nowhere.pth" in refused("--with", "nowhere.pth")
    assert "omit --with" in refused("--with", str(other), "--export", "cityscapes")
    assert "--average logits is of several networks" in refused("--average", "logits")
    fda = ("--with", str(other), "--average", "logits", "--protocol", "fda")
    assert "no logits to average" in refused(*fda)

    names = ("roof", *CITYSCAPES.classes[1:])
    odd = tmp_path / "odd.pth"
    values = snapshot_values(load(other))
    values["label_space"] |= {"name": "own", "classes": names}
    save(values, odd)
    assert "class 0 is roof, not road" in refused("--with", str(odd))


def test_other_commands_do_not_know_it(
    trained: Trained, other: Path, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        shell.run(
            "predict.py", "--restore-from", str(trained.snapshot), "--with", str(other),
            "--images", ".", "--output", "out",
        )  # fmt: skip
    assert end.value.code == 2
    assert "unrecognized arguments: --with" in capsys.readouterr().err
