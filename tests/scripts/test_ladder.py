"""The ladder with made-up results: what it runs, and the figures, report and chart it makes."""

import copy
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ladder
import ladder_chart
from factories import tiny_snapshot
from uda.checkpoints.snapshots import save, snapshot_values
from uda.experiments import PRESETS, load_preset, toy_city
from uda.utilities.errors import InputError

pytest.importorskip("matplotlib")  # of the extra plots, which draws the chart


def row(
    preset: str, miou: list[float], *, supervision: str = "none", mistake: bool = False,
    bicycle: float = 2.5,
) -> dict[str, Any]:  # fmt: skip
    return {
        "preset": preset,
        "mistake": mistake,
        "supervision": supervision,
        "seeds": [0, 1, 2],
        "miou": miou,
        "miou_batch_norm_reestimated": [value + 3 for value in miou],
        "minutes": 2.25,
        "per_class": {"road": [80.0, 81.0, 85.0], "bicycle": [bicycle] * 3},
    }


TRUTH = "ground truth (400 images)"
FOUND = {
    "views that are not aligned (C3)": row("toy_cross_view", [8.0, 9.0, 10.0], mistake=True),
    "few labels": row("toy_few", [20.0, 21.0, 22.0], supervision=TRUTH),
    "adversarial": row("toy_adversarial", [28.5, 30.0, 29.4]),
    "source only": row("toy_source_only", [30.0, 31.0, 29.0]),
    "student": row("toy_student", [33.5, 31.0, 32.1], supervision="pseudo"),
    "oracle": row("toy_oracle", [60.0, 62.0, 64.0], supervision=TRUTH, bicycle=100.0),
}


class TestReport:
    def test_the_main_table(self) -> None:
        lines = ladder.report(FOUND).splitlines()
        start = lines.index(
            "| method | preset | supervision | mIoU | range | batch norm re-estimated | minutes |"
        )
        # Adversarial: 87.9 / 3 = 29.3; the student: 96.6 / 3 = 32.2.
        assert lines[start + 2 : start + 8] == [
            "| views that are not aligned (C3) (mistake) | `toy_cross_view` | none | 9.0 | "
            "8.0 to 10.0 | 12.0 | 2.2 |",
            f"| few labels | `toy_few` | {TRUTH} | 21.0 | 20.0 to 22.0 | 24.0 | 2.2 |",
            "| adversarial | `toy_adversarial` | none | 29.3 | 28.5 to 30.0 | 32.3 | 2.2 |",
            "| source only | `toy_source_only` | none | 30.0 | 29.0 to 31.0 | 33.0 | 2.2 |",
            "| student | `toy_student` | pseudo | 32.2 | 31.0 to 33.5 | 35.2 | 2.2 |",
            f"| oracle | `toy_oracle` | {TRUTH} | 62.0 | 60.0 to 64.0 | 65.0 | 2.2 |",
        ]

    def test_the_table_of_the_classes(self) -> None:
        lines = ladder.report(FOUND).splitlines()
        start = lines.index("| method | road | bicycle |")
        assert lines[start + 1] == "| --- | ---: | ---: |"
        assert lines[start + 5] == "| source only | 82 | 2 |"  # 246 / 3; 2.5 rounds to even
        assert lines[start + 7 :] == ["| oracle | 82 | 100 |"]

    def test_it_says_which_seeds(self) -> None:
        assert "seeds 0, 1, 2," in ladder.report(FOUND)

    def test_unsupervised_methods_below_source_only_are_named(self) -> None:
        """Mistakes and methods with target labels are none of them."""
        sentence = (
            "Unsupervised methods below source only (30.00) in the mean: adversarial (29.30)."
        )
        assert sentence in ladder.report(FOUND).splitlines()

    def test_it_says_that_no_method_is_below_source_only(self) -> None:
        found = FOUND | {"adversarial": row("toy_adversarial", [31.0, 30.0, 29.0])}
        sentence = "No unsupervised method has a mean below that of source only (30.00)."
        assert sentence in ladder.report(found).splitlines()

    def test_without_source_only_nothing_is_compared_with_it(self) -> None:
        assert "source only" not in ladder.report({"student": FOUND["student"]})

    def test_students_whose_first_weights_saw_the_truth_are_supervised(self) -> None:
        values = row("toy", [1.0], supervision=f"pseudo; initial weights made with: {TRUTH}")
        assert ladder_chart.supervision_of(values) == "ground truth"


class TestChart:
    def test_the_same_figures_make_the_same_small_picture(self, tmp_path: Path) -> None:
        for name in ("first.png", "second.png"):
            ladder_chart.draw(FOUND, tmp_path / name)
        first = (tmp_path / "first.png").read_bytes()
        assert first == (tmp_path / "second.png").read_bytes()
        assert b"Software" not in first  # another matplotlib would change the file
        with Image.open(tmp_path / "first.png") as picture:
            assert picture.width == 1600
            assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)

    @pytest.mark.parametrize(
        "change",
        [
            lambda values: values["miou"].__setitem__(0, 30.5),
            lambda values: values["per_class"]["road"].__setitem__(1, 20.0),
            lambda values: values.update(minutes=7.0),
            lambda values: values.update(mistake=True),
            lambda values: values.update(supervision="pseudo"),
        ],
        ids=["miou", "class", "minutes", "mistake", "supervision"],
    )
    def test_every_figure_is_seen(
        self, tmp_path: Path, change: Callable[[dict[str, Any]], object]
    ) -> None:
        found = {"source only": FOUND["source only"]}
        ladder_chart.draw(found, tmp_path / "before.png")
        other = copy.deepcopy(found)
        change(other["source only"])
        ladder_chart.draw(other, tmp_path / "after.png")
        before, after = ((tmp_path / f"{name}.png").read_bytes() for name in ("before", "after"))
        assert before != after

    def test_all_rungs_and_classes_fit_into_the_size_of_a_committed_picture(
        self, tmp_path: Path
    ) -> None:
        found = {}
        for index, rung in enumerate(ladder.RUNGS):
            classes = {f"class {i:2}": [10.0 + (37 * i + 11 * index) % 90] for i in range(19)}
            found[rung.title] = row(rung.preset, [10.0 + index] * 3) | {"per_class": classes}
        ladder_chart.draw(found, tmp_path / "chart.png")
        assert (tmp_path / "chart.png").stat().st_size < 300_000

    def test_without_matplotlib_one_learns_what_to_install_before_anything_runs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commands: list[str] = []
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setattr(ladder, "command", lambda *words: commands.append(words[1]))
        with pytest.raises(
            InputError, match=r"needs matplotlib.*pip install 'uda\[plots\]', or ma"
        ):
            ladder.main(["--seeds", "0"])
        assert commands == []


class TestRungs:
    def test_each_is_a_toy_preset_of_its_own_with_a_title_of_its_own(self) -> None:
        for rung in ladder.RUNGS:
            assert rung.preset in PRESETS
            assert load_preset(rung.preset).data.root == toy_city.TOY_ROOT
        for names in ([r.preset for r in ladder.RUNGS], [r.title for r in ladder.RUNGS]):
            assert len(set(names)) == len(names)

    def test_those_that_go_on_from_others_name_a_rung_that_does_not(self) -> None:
        """A seed is run in two rounds."""
        first = {rung.preset for rung in ladder.RUNGS if rung.labels_of is None}
        for rung in ladder.RUNGS:
            takes_labels = load_preset(rung.preset).data.pseudo_labels is not None
            assert takes_labels == (rung.labels_of is not None), rung.preset
            assert rung.labels_of is None or rung.labels_of in first

    def test_source_only_is_one_of_them(self) -> None:
        (rung,) = (r for r in ladder.RUNGS if r.title == ladder_chart.SOURCE_ONLY)
        assert rung.preset == "toy_source_only"


class Commands:
    """Stands in for `ladder.command`: leaves what the commands would leave, in no time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, log: str, script: str, *arguments: str) -> None:
        self.calls.append((script, *arguments))
        option = dict(pairwise(arguments))
        if script == "train_uda.py":
            folder = Path("snapshots") / option["--run"]
            folder.mkdir(parents=True)  # as a run that finds a former one would, it refuses
            miou = {"toy_source_only": 30.004, "toy_pseudo_label": 20.0}[option["--preset"]]
            miou += int(folder.name[-1])
            snapshot = tiny_snapshot(load_preset(option["--preset"]))
            scores = {"miou": miou, "per_class": {"road": 80.004, "bicycle": miou}}
            path = folder / "GTA5_500.pth"
            save(snapshot_values(replace(snapshot, scores=scores)), path)
        elif script == "eval_single.py":
            Path(option["--json"]).write_text(json.dumps({"miou": 41.996}))
        elif script == "pseudo_label.py":
            Path(option["--output"]).mkdir()

    def scripts(self) -> list[str]:
        return [call[0] for call in self.calls]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """In an empty folder, where nothing is trained."""
    monkeypatch.chdir(tmp_path)
    stand_in = Commands()
    monkeypatch.setattr(ladder, "command", stand_in)
    return stand_in


ONLY = ("--jobs", "1", "--only", "toy_source_only", "toy_pseudo_label")


class TestLadder:
    def test_it_trains_scores_and_labels_in_this_order_and_writes_three_files(
        self, commands: Commands
    ) -> None:
        ladder.main(["--seeds", "0", "1", *ONLY])
        first = ["train_uda.py", "eval_single.py"]
        then = ["pseudo_label.py", *first]
        expected = ["scripts/make_toy_city.py", *first, *first, *then, *then]
        assert commands.scripts() == expected
        parent = "snapshots/ladder/toy_source_only_1"
        assert commands.calls[9] == (
            "train_uda.py", "--preset", "toy_pseudo_label", "--run", "ladder/toy_pseudo_label_1",
            "--set", "train.seed=1", "--restore-from", f"{parent}/GTA5_500.pth",
            "--set", f"data.pseudo_labels={parent}/pseudo_labels",
        )  # fmt: skip

        found = json.loads(Path("snapshots/ladder/toy_ladder.json").read_text())
        assert list(found) == ["pseudo-labels of source only", "source only"]  # the best last
        minutes = found["source only"].pop("minutes")
        assert minutes >= 0
        assert found["source only"] == {
            "preset": "toy_source_only",
            "mistake": False,
            "supervision": "none",
            "seeds": [0, 1],
            "miou": [30.0, 31.0],
            "miou_batch_norm_reestimated": [42.0, 42.0],
            "per_class": {"road": [80.0, 80.0], "bicycle": [30.0, 31.0]},
        }
        assert (
            Path("snapshots/ladder/toy_ladder.md").read_text().startswith("# The toy city's ladder")
        )
        with Image.open("snapshots/ladder/toy_ladder.png") as picture:
            assert picture.width == 1600

    def test_what_is_finished_is_not_run_again(self, commands: Commands) -> None:
        ladder.main(["--seeds", "0", *ONLY])
        before = Path("snapshots/ladder/toy_ladder.json").read_bytes()
        commands.calls.clear()
        ladder.main(["--seeds", "0", *ONLY])
        assert commands.scripts() == ["scripts/make_toy_city.py"]
        assert Path("snapshots/ladder/toy_ladder.json").read_bytes() == before

    def test_climb_says_how_long_a_finished_rung_took(self, commands: Commands) -> None:
        rung = ladder.RUNGS[0]
        ladder.folder_of(rung, 0).mkdir(parents=True)
        (ladder.folder_of(rung, 0) / "minutes.json").write_text("3.25")
        assert ladder.climb(rung, 0) == 3.25
        assert commands.calls == []

    def test_an_interrupted_rung_is_run_from_its_start(self, commands: Commands) -> None:
        (rung,) = (r for r in ladder.RUNGS if r.preset == "toy_source_only")
        folder = ladder.folder_of(rung, 0)
        folder.mkdir(parents=True)
        (folder / "resume.pth").touch()
        ladder.climb(rung, 0)
        assert commands.scripts() == ["train_uda.py", "eval_single.py"]
        assert not (folder / "resume.pth").exists()

    def test_a_rung_whose_parent_was_left_out_says_so(self, commands: Commands) -> None:
        with pytest.raises(InputError, match=r"toy_source_only_0 has no snapshot: run toy_sou"):
            ladder.main(["--seeds", "0", "--only", "toy_pseudo_label"])

    def test_an_unknown_preset_is_refused(
        self, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            ladder.main(["--only", "toy_nothing"])
        assert "toy_nothing" in capsys.readouterr().err
        assert commands.calls == []

    def test_a_failing_command_ends_it_and_leaves_its_words_in_a_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("fails.py").write_text(
            "import os, sys\nprint(os.environ['OMP_NUM_THREADS'], 'thread')\nsys.exit('no disk')\n"
        )
        with pytest.raises(InputError, match=r"fails.py --seed 1 failed; see \S+/words.txt"):
            ladder.command("words", str(tmp_path / "fails.py"), "--seed", "1")
        said = Path("snapshots/ladder/logs/words.txt").read_text()
        assert sorted(said.splitlines()) == ["1 thread", "no disk"]
