"""The ladder's tables and chart, of made-up figures and of those that are shipped."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ladder
import ladder_chart
import ladder_report
from ladder_rungs import RUNGS, rung_named
from uda.utilities.errors import InputError

pytest.importorskip("matplotlib")  # of the extra plots, which draws the chart


def row(
    preset: str, miou: list[float], *, supervision: str = "none", mistake: bool = False,
    bicycle: float = 2.5, builds_on: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "rung": preset,
        "preset": preset,
        "mean_of": [],
        "labels": "",
        "builds_on": builds_on,
        "explanation": "",
        "digest": "0123456789abcdef",
        "steps": 500,
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
    "adversarial": row("toy_adversarial", [28.5, 30.0, 29.4], builds_on="toy_source_only"),
    "source only": row("toy_source_only", [30.0, 31.0, 29.0]),
    "student": row("toy_student", [33.5, 31.0, 32.1], supervision="pseudo",
                   builds_on="toy_source_only"),
    "oracle": row("toy_oracle", [60.0, 62.0, 64.0], supervision=TRUTH, bicycle=100.0),
}  # fmt: skip


class TestReport:
    def test_the_main_table(self) -> None:
        lines = ladder_report.report(FOUND).splitlines()
        start = lines.index(
            "| method | preset | builds on | supervision | steps | mIoU | range | "
            "batch norm re-estimated | minutes |"
        )
        # Adversarial: 87.9 / 3 = 29.3; the student: 96.6 / 3 = 32.2.
        assert lines[start + 2 : start + 8] == [
            "| views that are not aligned (C3) (mistake) | `toy_cross_view` |  | none | 500 | 9.0 |"
            " 8.0 to 10.0 | 12.0 | 2.2 |",
            f"| few labels | `toy_few` |  | {TRUTH} | 500 | 21.0 | 20.0 to 22.0 | 24.0 | 2.2 |",
            "| adversarial | `toy_adversarial` | source only | none | 500 | 29.3 | 28.5 to 30.0 | "
            "32.3 | 2.2 |",
            "| source only | `toy_source_only` |  | none | 500 | 30.0 | 29.0 to 31.0 | 33.0 | "
            "2.2 |",
            "| student | `toy_student` | source only | pseudo | 500 | 32.2 | 31.0 to 33.5 | 35.2 | "
            "2.2 |",
            f"| oracle | `toy_oracle` |  | {TRUTH} | 500 | 62.0 | 60.0 to 64.0 | 65.0 | 2.2 |",
        ]

    def test_what_is_not_in_the_preset(self) -> None:
        mean_of = {"preset": "", "mean_of": ["toy_a", "toy_b"], "seeds": [0], "miou": [29.0]}
        found = FOUND | {
            "mean": FOUND["source only"] | mean_of,
            "student": FOUND["student"] | {"labels": "--rule iast"},
        }
        text = ladder_report.report(found)
        assert "| mean (of seeds 0) | mean of `toy_a`, `toy_b` |" in text
        assert "| student | `toy_student`, labels: `--rule iast` |" in text

    def test_a_line_for_each_below_the_one_it_builds_on(self) -> None:
        lines = ladder_report.report(FOUND).splitlines()
        start = lines.index("Methods with a mean below that of the one they build on:")
        below = "- adversarial (29.30) is below source only (30.00): "
        assert lines[start + 1 : start + 4] == ["", f"{below}not explained yet.", ""]
        explained = FOUND["adversarial"] | {"explanation": "it saw red."}
        assert f"{below}it saw red." in ladder_report.report(FOUND | {"adversarial": explained})

    def test_it_says_that_none_is_below_the_one_it_builds_on(self) -> None:
        found = FOUND | {"adversarial": row("toy_adversarial", [30.0] * 3)}
        said = "No method has a mean below that of the one it builds on."
        assert said in ladder_report.report(found).splitlines()

    def test_seeds_are_compared_that_both_have(self) -> None:
        """30.5 on seed 1 alone is below the other's 31 there, though not below its mean."""
        found = FOUND | {"student": FOUND["student"] | {"seeds": [1], "miou": [30.5]}}
        below = list(ladder_report.below_what_they_build_on(found))
        assert ("student", 30.5, 31.0) in below
        found["student"]["seeds"] = [7]
        below = list(ladder_report.below_what_they_build_on(found))
        assert [title for title, *_ in below] == ["adversarial"]

    def test_the_table_of_the_classes(self) -> None:
        lines = ladder_report.report(FOUND).splitlines()
        start = lines.index("| method | road | bicycle |")
        assert lines[start + 1] == "| --- | ---: | ---: |"
        assert lines[start + 5] == "| source only | 82 | 2 |"  # 246 / 3; 2.5 rounds to even
        assert lines[start + 7 :] == ["| oracle | 82 | 100 |"]

    def test_it_says_which_seeds(self) -> None:
        assert "seeds 0, 1, 2," in ladder_report.report(FOUND)

    def test_unsupervised_methods_below_source_only_are_named(self) -> None:
        """Mistakes and methods with target labels are none of them."""
        sentence = (
            "Unsupervised methods below source only (30.00) in the mean: adversarial (29.30)."
        )
        assert sentence in ladder_report.report(FOUND).splitlines()

    def test_it_says_that_no_method_is_below_source_only(self) -> None:
        found = FOUND | {"adversarial": row("toy_adversarial", [31.0, 30.0, 29.0])}
        sentence = "No unsupervised method has a mean below that of source only (30.00)."
        assert sentence in ladder_report.report(found).splitlines()

    def test_without_source_only_nothing_is_compared_with_it(self) -> None:
        assert "source only" not in ladder_report.report({"student": FOUND["student"]})

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
        for index, rung in enumerate(RUNGS):
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


SHIPPED = json.loads((ladder.REPOSITORY / f"{ladder.RESULTS}.json").read_text())


class TestShipped:
    """What experiments/ has; after a change of the list of rungs: `make ladder`."""

    def test_every_rung_is_in_it(self) -> None:
        shipped = {values["rung"] for values in SHIPPED.values()}
        assert shipped == {rung.key for rung in RUNGS}

    def test_what_is_below_the_one_it_builds_on_is_explained(self) -> None:
        for title, *_ in ladder_report.below_what_they_build_on(SHIPPED):
            rung = rung_named(SHIPPED[title]["rung"])
            assert rung.explanation, f"scripts/ladder_rungs.py: explain why {title} is below"
            assert rung.explanation == SHIPPED[title]["explanation"], "run `make ladder`"

    def test_its_tables_are_of_its_figures(self) -> None:
        shipped = (ladder.REPOSITORY / f"{ladder.RESULTS}.md").read_text()
        assert ladder_report.report(SHIPPED) == shipped
