"""Runs as methods: seeds, selections, what compares, paired bootstrap, LaTeX, CSV, the page."""

import csv
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import pytest
import torch

from adapted_folders import EVIL
from report_pages import page_of, rows_of
from shells import NAMES, Trained
from uda.commands.main import main
from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.reports.bootstrap import differences
from uda.reports.comparison import by_class, grouped, overview
from uda.reports.comparison_page import comparison_page
from uda.reports.looking import Looked
from uda.reports.per_image import save_per_image
from uda.reports.run_files import FoundRun, Run
from uda.reports.table_formats import comma_separated, latex
from uda.training.summary import ORACLE

PROTOCOL = "native on x val: as stored"


def run(
    folder: Path, name: str, preset: str, seed: int, miou: float, *, protocol: str = PROTOCOL,
    oracle: float | None = None, supervision: str = "none", rate: float = 0.1,
) -> FoundRun:  # fmt: skip
    """A run of two classes whose second one is 10 points better."""
    facts = {"preset": preset, "seed": str(seed), "step": "100", "supervision": supervision}
    selections = [] if oracle is None else [
        {"way": ORACLE, "step": 50, "miou": oracle, "criterion": None, "snapshot": None},
        {"way": "best by mean entropy", "step": 80, "miou": miou - 1, "criterion": 1.0,
         "snapshot": None},
    ]  # fmt: skip
    classes: dict[str, float | None] = {"road": miou - 5, "sky": miou + 5}
    made = Run(name, facts, protocol, 100, miou, classes, None, selections)
    (folder / name).mkdir(exist_ok=True)
    experiment = {"train": {"seed": seed, "rate": rate}, "data": {"root": name, "source": "s"}}
    return FoundRun(made, folder / name, folder / name / "GTA5_100.pth", experiment, None)


def test_runs_that_differ_in_their_seed_are_one_method(tmp_path: Path) -> None:
    found = [
        run(tmp_path, "a0", "a", 0, 50.0, oracle=52.0),
        run(tmp_path, "b0", "b", 0, 40.0, supervision="pseudo"),
        run(tmp_path, "a1", "a", 1, 53.0, oracle=54.0),
        run(tmp_path, "a2", "a", 2, 53.0, oracle=56.0, rate=0.2),  # another method, then
    ]
    (group,) = grouped(found)
    assert overview(group) == [
        ["method", "supervision", "protocol", "steps", "seeds", "last", "oracle selection",
         "best by mean entropy"],
        ["a (a0)", "none", "native", "100", "0, 1", f"51.50 ± {stdev([50, 53]):.2f}",
         f"53.00 ± {stdev([52, 54]):.2f}", f"50.50 ± {stdev([50, 53]):.2f}"],
        ["b", "pseudo", "native", "100", "0", "40.00", "-", "-"],
        ["a (a2)", "none", "native", "100", "2", "53.00", "56.00", "52.00"],
    ]  # fmt: skip
    assert by_class(group)[0] == ["method", "supervision", "protocol", "mIoU", "road", "sky"]
    assert by_class(group)[2] == ["b", "pseudo", "native", "40.00", "35.00", "45.00"]


def test_a_mean_over_some_of_the_seeds_and_a_spread_of_one_seed_are_not_given(
    tmp_path: Path,
) -> None:
    found = [run(tmp_path, "a0", "a", 0, 50.0, oracle=52.0), run(tmp_path, "a1", "a", 1, 53.0)]
    (group,) = grouped(found)
    assert overview(group)[1][6:] == ["-", "-"]
    (group,) = grouped([run(tmp_path, name, "a", 0, 50.0) for name in ("x", "y")])
    assert overview(group)[1][4:6] == ["0, 0", "50.00"]


def test_what_does_not_compare_is_set_apart_with_the_reason(tmp_path: Path) -> None:
    other = run(tmp_path, "c", "c", 0, 60.0)
    fewer = replace(other, run=replace(other.run, per_class={"road": 1.0}))
    dacs = run(tmp_path, "b", "b", 0, 40.0, protocol="dacs on x val: y")
    first, second, third = grouped([run(tmp_path, "a", "a", 0, 50.0), dacs, fewer])
    assert first.reason == ""
    assert second.reason.startswith("another protocol, data set or split; in the first table it is")
    assert third.reason == "1 classes here, 2 there, or other names"
    lines = list(csv.DictReader(StringIO(comma_separated([first, second, third]))))
    assert [line["group"] for line in lines] == ["1", "2", "3"]
    assert lines[1]["not comparable because"] == second.reason
    assert "% not comparable with the first table: another protocol" in latex([first, second])


def test_latex_and_csv_escape_what_is_special(tmp_path: Path) -> None:
    odd = "=1+1_{50%} & \\input{x} $y$ #~^\n<b>"
    groups = grouped([run(tmp_path, "a", odd, 0, 50.0), run(tmp_path, "b", "b", 0, 1.0)])
    text = latex(groups)
    escaped = (r"=1+1\_\{50\%\} \& \textbackslash{}input\{x\} \$y\$ \#\textasciitilde{}"
               r"\textasciicircum{} \textless{}b\textgreater{}")  # fmt: skip
    assert text.count(escaped) == 2
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {5, 6}  # by class, by selection
    (first, _) = csv.DictReader(StringIO(comma_separated(groups)))
    assert first["method"] == f"'{odd}"
    assert (first["last"], first["last std"], first["IoU sky"]) == ("50.0000", "", "55.0000")


def counted(
    found: FoundRun, right: list[int], *, stems: str = "abcd", unscored: tuple[int, ...] = ()
) -> None:
    """Counts of images of 10 pixels, half of each class, as many of the first right as said."""
    looked = Looked(found.run.protocol, 9, two_classes(), unscored, list(stems))
    looked.counts = [np.array([[n, 5 - n], [0, 5]], np.int64) for n in right]
    save_per_image(found.folder, looked, "GTA5_100.pth")


def two_classes() -> LabelSpace:
    return replace(
        CITYSCAPES, name="two", classes=("road", "sky"), report_names=("road", "sky"),
        palette=((0, 0, 0),) * 2, raw_to_train={0: 0, 1: 1},
    )  # fmt: skip


def test_the_bootstrap_draws_the_same_images_for_both(tmp_path: Path) -> None:
    better, worse = run(tmp_path, "a", "a", 0, 50.0), run(tmp_path, "b", "b", 0, 40.0)
    counted(better, [5, 4, 5, 3])
    counted(worse, [1, 5, 4, 3], stems="dabc")  # in another order: always one less or more
    (group,) = grouped([better, worse])
    (found,) = differences(group)
    # Of 20 pixels of each class: 17 and 13 right. IoU 17/20 and 20/23; 13/20 and 20/27.
    assert found.difference == pytest.approx(50 * (17 / 20 + 20 / 23 - 13 / 20 - 20 / 27))
    assert found.images == 4
    assert found.low <= found.difference <= found.high
    assert found == next(differences(group))  # the same draws
    # a has as many right as b, or more, in every image: no draw says otherwise.
    assert found.low >= 0
    same = run(tmp_path, "c", "c", 0, 40.0)
    counted(same, [5, 4, 5, 3])
    (group,) = grouped([better, same])
    (found,) = differences(group)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "not shown either way"


def test_a_bootstrap_over_seeds_and_scored_classes(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"a{seed}", "a", seed, 50.0) for seed in (0, 1)]
    other = run(tmp_path, "b", "b", 0, 40.0)
    counted(runs[0], [5, 5, 5, 5], unscored=(1,))
    counted(runs[1], [3, 3, 3, 3], unscored=(1,))
    counted(other, [2, 2, 2, 2], unscored=(1,))
    (group,) = grouped([*runs, other])
    (found,) = differences(group)
    assert found.difference == pytest.approx(100 * ((1.0 + 0.6) / 2 - 0.4))
    assert found.verdict == "a is better"
    assert found.share == 1


def test_missing_counts_are_named(tmp_path: Path) -> None:
    first, second = run(tmp_path, "a", "a", 0, 50.0), run(tmp_path, "b", "b", 0, 40.0)
    counted(first, [1, 2, 3, 4])
    (group,) = grouped([first, second])
    (found,) = differences(group)
    assert found.verdict == "not known"
    assert found.missing.startswith("b has no counts of single images: uda report b --images N")
    counted(second, [1, 2], stems="ab")
    assert "of other images (4 and 2)" in next(differences(group)).missing
    later = replace(second, snapshot=second.folder / "GTA5_200.pth")
    (group,) = grouped([first, later])
    assert "are of GTA5_100.pth by native" in next(differences(group)).missing


def test_the_page_says_all_and_escapes(tmp_path: Path) -> None:
    found = [
        run(tmp_path, "a0", EVIL, 0, 50.0, oracle=52.0, supervision=EVIL),
        run(tmp_path, "a1", EVIL, 1, 54.0, oracle=54.0, supervision=EVIL),
        run(tmp_path, "b", "b", 0, 40.0, protocol=f"dacs on {EVIL}"),
    ]
    path = comparison_page(grouped(found), tmp_path / "x.html", command="uda report a b")
    page = page_of(path)
    assert "2 methods, 3 runs" in page.text
    methods, classes, other, *_ = page.all("table")
    assert rows_of(methods)[1][:6] == [EVIL, EVIL, "native", "100", "0, 1", "52.00 ± 2.83"]
    assert rows_of(classes)[1][2:] == ["52.00 ± 2.83", "47.00 ± 2.83", "57.00 ± 2.83"]
    assert rows_of(other)[1][:3] == ["b", "none", "dacs"]
    assert "Not comparable with the first table: another protocol" in page.text


def test_uda_compare_prints_and_writes_it(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(trained.snapshot.parent, tmp_path / "snapshots" / name)
    path = tmp_path / "snapshots/two/GTA5_3.pth"
    values: dict[str, Any] = torch.load(path, weights_only=True)
    torch.save(values | {"preset": "another"}, path)
    assert main(["compare", "one", "two", "--images", "2", "--workers", "0"]) == 0
    shown = capsys.readouterr()
    assert "toy_class_mix minus another: +0.00, 95 % interval +0.00 to +0.00 over 2" in shown.out
    assert "page: snapshots/comparison.html" in shown.err
    assert "another" in page_of(tmp_path / "snapshots/comparison.html").text
    assert main(["report", "one", "two", "--format", "csv", "--output", "x.html"]) == 0
    lines = list(csv.DictReader(StringIO(capsys.readouterr().out)))
    assert [line["method"] for line in lines] == ["toy_class_mix", "another"]
    assert f"IoU {NAMES[0]}" in lines[0]
    assert Path("x.html").exists()
