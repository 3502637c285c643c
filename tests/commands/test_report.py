"""uda report: what runs left, next to published numbers; what does not compare is set apart."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from shells import NAMES, Trained
from uda.commands.main import main
from uda.experiments.published import published


@pytest.fixture
def runs(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with snapshots/mine, a run of three steps."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.snapshot.parent, tmp_path / "snapshots/mine")
    return tmp_path / "snapshots"


def scores_of(runs: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(runs / "mine/GTA5_3.pth", weights_only=True)["scores"]
    return found


def altered(runs: Path, name: str, **changes: object) -> None:
    """A copy of the run whose snapshot says something else."""
    shutil.copytree(runs / "mine", runs / name)
    path = runs / name / "GTA5_3.pth"
    values = torch.load(path, weights_only=True) | changes
    torch.save(values, path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["report", *arguments]) == 0
    return capsys.readouterr().out


def test_a_run_says_what_it_is_and_how_it_scored(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "snapshots/mine")
    for fact in (r"preset +toy_class_mix", "seed +0", "step +3", "supervision +none"):
        assert any(line.split() == fact.replace(" +", " ").split() for line in text.splitlines())
    assert "torch" in text
    scores = scores_of(runs)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["mIoU"] == [f"{scores['miou']:.2f}"]
    for name in NAMES:
        iou = scores["per_class"][name]
        assert rows[name] == ["-" if iou is None else f"{iou:.2f}"]
    assert "selections of mine" in text
    summary = json.loads((runs / "mine/summary.json").read_text())
    assert text.count("GTA5_3.pth") == len(summary["selection"])
    assert f"protocol {scores['protocol']}" in text


def test_runs_by_name_stand_side_by_side(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    altered(runs, "other", scores=scores_of(runs) | {"miou": 12.3456})
    lines = shown(capsys, "mine", "other", "mine").splitlines()
    assert lines[0].split() == ["mine", "other"]
    (miou,) = (line.split() for line in lines if line.startswith("mIoU"))
    assert miou[2:] == ["12.35"]


def test_published_numbers_stand_next_to_ours(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(runs, "aagc", preset="aagc_640x360_b2_student")
    entry = published("aagc_640x360_b2_student", 3)
    assert entry is not None
    text = shown(capsys, "aagc")
    assert f"published for aagc: {entry.preset} at step {entry.step} of the log" in text
    (miou,) = (line.split() for line in text.splitlines() if line.startswith("mIoU"))
    assert miou[2] == f"{entry.miou:.2f}"


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"protocol": "dacs on cityscapes val: x"}, "the protocol there is"),
        ({"per_class": {"sky": 1.0, "road": 2.0}}, "2 classes here, 19 there"),
    ],
)
def test_what_does_not_compare_is_set_apart_with_the_reason(
    scores: dict[str, Any], reason: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(runs, "other", scores=scores_of(runs) | scores)
    text = shown(capsys, "mine", "other")
    assert f"not comparable with the first table: {reason}" in text
    assert [line.split() for line in text.splitlines() if line.startswith("class")] == [
        ["class", "mine"], ["class", "other"],
    ]  # fmt: skip


def test_markdown_and_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "mine", "--format", "markdown", "--json", "runs.json")
    assert "| class | mine |\n| --- | --- |\n| mIoU |" in text
    (run,) = json.loads(Path("runs.json").read_text())
    assert (run["name"], run["step"], run["published"]) == ("mine", 3, None)
    assert list(run["per_class"]) == list(NAMES)
    assert run["selections"][0]["way"] == "last"


def test_a_preset_of_no_steps_is_reported_from_its_scores(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"preset": "some_logged", "snapshot": "theirs.pth", "supervision": "none"}
    (runs / "zero").mkdir()
    (runs / "zero/scores.json").write_text(json.dumps(facts | scores_of(runs)))
    lines = [line.split() for line in shown(capsys, "mine", "zero").splitlines()]
    assert ["step", "3", "0"] in lines
    assert any(line[:1] + line[-1:] == ["initial", "theirs.pth"] for line in lines)
    assert not any(line[:2] == ["not", "comparable"] for line in lines)


def test_a_run_without_scores_is_shown_and_compares_with_none(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(runs, "unscored", scores=None)
    text = shown(capsys, "unscored")
    assert ["mIoU", "-"] in [line.split() for line in text.splitlines()]
    assert "protocol not scored: uda eval --restore-from FILE scores a snapshot" in text
    assert "No mIoU at step 3" in (runs / "unscored/report.html").read_text()
    assert "not comparable with the first table" in shown(capsys, "mine", "unscored")


def test_what_a_terminal_would_obey_is_escaped(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(runs, "odd", supervision="none\x1b[2J")
    text = shown(capsys, "odd")
    assert "\x1b" not in text
    assert r"none\x1b[2J" in text


def test_what_is_no_run_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "empty").mkdir()
    (runs / "odd").mkdir()
    (runs / "odd/scores.json").write_text("[")
    for name, complaint in {
        "nowhere": "nowhere is not a folder of a run: give one such as snapshots/RUN",
        "empty": "snapshots/empty has no snapshot: wait until the run has saved one",
        "odd": "snapshots/odd/scores.json is damaged",
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["report", name])
        assert end.value.code == 2
        assert f"error: {complaint}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "rows",
    ["7", '[{"way": "last"}]', "[" * 5000, '[{"way": "last", "step": 3, "miou": "high", '
     '"criterion": null, "snapshot": null}]'],
)  # fmt: skip
def test_a_damaged_summary_is_refused(
    rows: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "mine/summary.json").write_text(f'{{"selection": {rows}}}')
    with pytest.raises(SystemExit) as end:
        main(["report", "mine"])
    assert end.value.code == 2
    assert "summary.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("changes", [{"miou": "high"}, {"per_class": [1.0]}])
def test_damaged_scores_are_refused(
    changes: dict[str, Any], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(runs, "odd", scores=scores_of(runs) | changes)
    with pytest.raises(SystemExit) as end:
        main(["report", "odd"])
    assert end.value.code == 2
    assert "GTA5_3.pth is damaged" in capsys.readouterr().err
