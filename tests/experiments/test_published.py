"""The log's published numbers: whole, found by preset and step, and printed beside ours."""

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from factories import tiny_snapshot
from shells import Shell
from tiny_runs import tiny_options, tiny_preset
from uda.checkpoints.snapshots import save, snapshot_values
from uda.data.registry import layout_named
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.metrics import Scores
from uda.evaluation.reports import comparison_table
from uda.experiments import PRESETS, load_preset
from uda.experiments.published import compare, published
from uda.labels.spaces import CITYSCAPES

NO_RUN = "pseudo_label_eval"
# Every run of the log that trained, and the one network that it only scored.
RUNS = {
    "segmentron_deeplabv3plus_r101_cityscapes",
    "multi_640x360_lsgan_b1", "multi_640x360_lsgan_b2",
    "gc_640x360_b1", "gc_640x360_b2_d1000", "agc_640x360_b1",
    "aagc_640x360_b2", "aagc_640x360_b2_d1000", "aagc_640x360_b2_d500",
    "aagc_640x360_b2_multiaug",
    "aagc_640x360_b2_student", "aagc_640x360_b2_student_autoaug",
    "aagc_640x360_b2_student_full", "aagc_640x360_b2_student_full_autoaug",
    "cityscapes_seg", "cityscapes_seg_d2000", "cityscapes_seg_d1000", "cityscapes_seg_d500",
    "cityscapes_seg_d100",
    "aagc_640x360_b2_single", "aagc_640x360_b2_single_cutmix",
    "aagc_640x360_b2_single_cutmix_real", "aagc_640x360_b2_single_cutmix_real_d1000",
    "aagc_640x360_b2_single_cutmix_real_d500", "aagc_640x360_b2_single_cutmix_real_d100",
    "aagc_640x360_b2_single_fixmatch", "aagc_640x360_b2_single_finetune",
    "aagc_640x360_b2_single_cutmix_student_gt", "aagc_640x360_b2_single_cutmix_student_own",
    "aagc_640x360_b2_single_cutmix_student_conf05",
}  # fmt: skip

LOG: dict[str, list[dict[str, Any]]] = json.loads(
    resources.files("uda.experiments").joinpath("published.json").read_text("utf-8")
)
ENTRIES = [(name, entry) for name, entries in LOG.items() for entry in entries]

NAMES = ("road", "light")
OURS = Scores(
    iou=(0.60006, math.nan), miou=0.4442, pixel_accuracy=0.9, absent=("light",), confusion=()
)
HALF = Scores(
    iou=(0.5,) * 16 + (math.nan, 0.5, 0.5), miou=0.5, pixel_accuracy=0.5, absent=("train",),
    confusion=(),
)  # fmt: skip
VAL = EvaluationConfig(dataset="cityscapes")


# --- the numbers


def test_every_run_of_the_log_is_there() -> None:
    assert set(LOG) == RUNS | {NO_RUN}
    assert len(RUNS) == 30


def test_every_published_run_has_both_presets() -> None:
    missing = [name for run in sorted(RUNS) for name in (run, f"logged_{run}")
               if name not in PRESETS]  # fmt: skip
    assert missing == []


def test_entries_have_every_field_in_the_order_of_their_steps() -> None:
    fields = {"step", "miou", "per_class", "supervision", "note"}
    assert all(set(entry) == fields for _, entry in ENTRIES)
    for name, entries in LOG.items():
        steps = [entry["step"] for entry in entries]
        if len(steps) > 1:
            assert steps == sorted(set(steps)), name


def test_class_tables_are_percent_and_average_to_their_miou() -> None:
    tables = [(name, entry) for name, entry in ENTRIES if entry["per_class"] is not None]
    assert len(tables) == 33
    for name, entry in tables:
        per_class = entry["per_class"]
        assert set(per_class) == set(CITYSCAPES.report_names), name
        assert sum(per_class.values()) / 19 == pytest.approx(entry["miou"], abs=0.01), name
    (segmentron,) = LOG["segmentron_deeplabv3plus_r101_cityscapes"]
    assert (segmentron["miou"], segmentron["per_class"]["sidewalk"]) == (78.271, 83.9992)


@pytest.mark.parametrize(
    ("name", "supervision"),
    [
        ("aagc_640x360_b2", "none"),
        ("aagc_640x360_b2_student", "none"),
        ("aagc_640x360_b2_single_fixmatch", "none"),
        ("aagc_640x360_b2_single_cutmix", "ground truth (2975 images)"),
        ("aagc_640x360_b2_single_cutmix_real_d100", "ground truth (100 images)"),
        ("cityscapes_seg_d2000", "ground truth (2000 images)"),
        (
            "aagc_640x360_b2_single_finetune",
            "none; initial weights made with: ground truth (2975 images)",
        ),
        (
            "aagc_640x360_b2_single_cutmix_student_own",
            "pseudo; labels made with: ground truth (2975 images); "
            "initial weights made with: ground truth (2975 images)",
        ),
    ],
)
def test_supervision_is_what_the_run_had_seen(name: str, supervision: str) -> None:
    assert {entry["supervision"] for entry in LOG[name]} == {supervision}


def test_doubtful_numbers_say_so() -> None:
    doubtful = [entry["miou"] for _, entry in ENTRIES if "doubtful" in entry["note"]]
    assert sorted(doubtful) == [41.71, 41.71, 62.65, 62.65, 62.65]
    assert sum(entry["miou"] in (41.71, 62.65) for _, entry in ENTRIES) == 5


def test_notes_name_presets_that_exist_in_the_log() -> None:
    for _, entry in ENTRIES:
        words = entry["note"].replace(":", " ").replace(",", " ").replace(";", " ").split()
        assert {word for word in words if "640x360" in word} <= RUNS
        assert entry["note"].isascii()


# --- look-ups


@pytest.mark.parametrize(
    ("preset", "step", "found"),
    [
        ("agc_640x360_b1", 40_000, (40_000, 41.02)),
        ("agc_640x360_b1", 110_000, (110_000, 44.23)),
        ("agc_640x360_b1", 45_000, (110_000, 44.23)),
        ("aagc_640x360_b2_student_full", 60_000, (60_000, 45.56)),
        # of another step: the last with classes, not the last
        ("aagc_640x360_b2_student_full", 45_000, (40_000, 46.92)),
        ("cityscapes_seg", None, (20_000, 68.03)),
        ("segmentron_deeplabv3plus_r101_cityscapes", 0, (None, 78.271)),
        ("segmentron_deeplabv3plus_r101_cityscapes", None, (None, 78.271)),
    ],
)
def test_lookup(preset: str, step: int | None, found: tuple[int | None, float]) -> None:
    for name in (preset, f"logged_{preset}"):
        entry = published(name, step)
        assert entry is not None
        assert (entry.preset, entry.step, entry.miou) == (preset, *found)


@pytest.mark.parametrize(
    "preset",
    [
        "toy_aagc",
        "logged_toy_aagc",
        "gc_640x360_b2_source_only",
        "aagc_640x360_b2_single_cutmix_student_own",  # the log has no figure
        "aagc_640x360_b2_single_cutmix_student_conf05",
        NO_RUN,
        "",
    ],
)
def test_no_number(preset: str) -> None:
    assert published(preset, 40_000) is None
    assert published(preset, None) is None


def test_every_run_with_a_figure_is_found() -> None:
    for name in RUNS:
        figures = [entry for entry in LOG[name] if entry["miou"] is not None]
        found = published(name, 45_001)
        assert (found is not None) == bool(figures), name
        if found is not None:
            assert found.per_class is not None, name


# --- beside ours


def test_table() -> None:
    classes = {"road": 89.43, "light": 40.42}
    table = comparison_table(OURS, NAMES, published_miou=44.42, published_per_class=classes)
    assert table == (
        "| class | ours | published | difference |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| mIoU | 44.42 | 44.42 | +0.00 |\n"
        "| road | 60.01 | 89.43 | -29.42 |\n"
        "| light | - | 40.42 | - |"
    )


def test_differences_are_those_of_the_printed_numbers() -> None:
    """60.006 less 60.004 is 0.002, but beside 60.01 and 60.00 a reader expects 0.01."""
    table = comparison_table(
        OURS, NAMES, published_miou=44.424, published_per_class={"road": 60.004}
    )
    assert table.splitlines()[2:] == [
        "| mIoU | 44.42 | 44.42 | +0.00 |",
        "| road | 60.01 | 60.00 | +0.01 |",
        "| light | - | - | - |",
    ]


def test_table_without_classes() -> None:
    table = comparison_table(OURS, NAMES, published_miou=43.02, published_per_class=None)
    assert table.splitlines()[2:] == ["| mIoU | 44.42 | 43.02 | +1.40 |"]
    with pytest.raises(ValueError, match="zip"):
        comparison_table(OURS, NAMES[:1], published_miou=43.02, published_per_class=None)


def test_comparison_of_a_preset() -> None:
    text, facts = compare(HALF, "aagc_640x360_b2", 45_000, VAL)
    assert facts == {"published": {"preset": "aagc_640x360_b2", "step": 40_000, "miou": 44.42}}
    assert text.endswith("\n")
    caption, note, *table = text.splitlines()
    assert caption == (
        "published: aagc_640x360_b2 at step 40000 of the log (ours: step 45000), 500 images of "
        "cityscapes val, supervision none; this preset is its counterpart with another network "
        "and schedule: logged_aagc_640x360_b2 repeats the log's run"
    )
    assert note == "note: scored on four views: two input sizes, each also mirrored"
    assert len(table) == 2 + 20
    assert table[2:4] == ["| mIoU | 50.00 | 44.42 | +5.58 |", "| road | 50.00 | 89.43 | -39.43 |"]
    assert "| train | - | 0.14 | - |" in table
    assert table[-1] == "| bicycle | 50.00 | 26.76 | +23.24 |"


def test_comparison_of_a_logged_preset() -> None:
    """No note, classes or other step to speak of."""
    text, _ = compare(HALF, "logged_aagc_640x360_b2_single", 45_000, VAL)
    assert text.splitlines()[:2] == [
        "published: aagc_640x360_b2_single at step 45000 of the log, 500 images of cityscapes val, "
        "supervision none",
        "| class | ours | published | difference |",
    ]
    text, _ = compare(HALF, "logged_segmentron_deeplabv3plus_r101_cityscapes", 0, VAL)
    caption = text.splitlines()[0]
    assert " at an unknown step of the log (ours: step 0), " in caption


@pytest.mark.parametrize(
    ("preset", "dataset", "split"),
    [
        ("toy_aagc", "cityscapes", "val"),
        ("aagc_640x360_b2", "cityscapes", "train"),
        ("aagc_640x360_b2", "gta5", "val"),
    ],
)
def test_nothing_to_compare(preset: str, dataset: str, split: str) -> None:
    evaluation = EvaluationConfig(dataset=dataset, split=split)
    assert compare(HALF, preset, 40_000, evaluation) == ("", {})


# --- the documents behind the other systems


DOCUMENTS: dict[str, list[dict[str, Any]]] = json.loads(
    resources.files("uda.experiments").joinpath("documents.json").read_text("utf-8")
)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_numbers_of_documents_stand_beside_their_presets(name: str) -> None:
    (entry,) = DOCUMENTS[name]
    evaluation = load_preset(name).evaluation
    assert (evaluation.dataset, evaluation.split) == (entry["dataset"], "val")
    names = layout_named(entry["dataset"]).label_space.report_names
    if entry["per_class"] is not None:
        assert set(entry["per_class"]) == set(names)
        mean = sum(entry["per_class"].values()) / len(names)
        assert mean == pytest.approx(entry["miou"], abs=0.01)
    ours = Scores(iou=(0.5,) * len(names), miou=0.5, pixel_accuracy=0.5, absent=(), confusion=())
    found = compare(ours, name, 16_000, evaluation)
    assert f"of {entry['document']}" in found.text
    assert f"{entry['images']} images of {entry['dataset']} val" in found.text
    assert "logged_" not in found.text
    assert found.facts["published"] == {
        "preset": name,
        "step": entry["step"],
        "miou": entry["miou"],
    }
    assert compare(ours, name, 16_000, VAL).text == ""


# --- the commands


def scored(shell: Shell, name: str, *arguments: str) -> list[str]:
    """The lines that a command prints, found to end with the log's twenty."""
    lines = shell.run(name, *arguments).splitlines()
    assert [line.startswith("===>") for line in lines[-20:]] == [True] * 20
    assert not any(line.startswith("===>") for line in lines[:-20])
    return lines


def evaluate(shell: Shell, root: Path, preset: str, *options: str) -> list[str]:
    """The lines of eval_single.py on a snapshot of step 7 whose preset is called `preset`."""
    snapshot = tiny_snapshot(tiny_preset("toy_class_mix", root))
    snapshot.preset = preset
    path = Path("GTA5_7.pth")
    save(snapshot_values(snapshot), path)
    common = ("--restore-from", str(path), "--workers", "0", "--device", "cpu")
    return scored(shell, "eval_single.py", *common, "--json", "scores.json", *options)


def facts_written() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path("scores.json").read_text())
    return facts


def test_eval_single_compares(shell: Shell, toy_root: Path) -> None:
    lines = evaluate(shell, toy_root, "aagc_640x360_b2")
    facts = facts_written()
    assert facts["published"] == {"preset": "aagc_640x360_b2", "step": 40_000, "miou": 44.42}
    (start,) = [i for i, line in enumerate(lines) if line.startswith("published: ")]
    assert "(ours: step 7)" in lines[start]
    assert lines[start + 1].startswith("note: ")
    miou = lines[start + 4].split(" | ")
    assert miou[:1] + miou[2:3] == ["| mIoU", "44.42"]
    printed = float(lines[-1].removeprefix("===> mIoU: "))
    assert float(miou[1]) == printed
    assert float(miou[3].rstrip(" |")) == pytest.approx(printed - 44.42)

    split = evaluate(shell, toy_root, "aagc_640x360_b2", "--split", "train")
    assert not any(line.startswith("published") for line in split)
    assert "published" not in facts_written()


def test_a_toy_run_prints_no_comparison(shell: Shell, toy_root: Path) -> None:
    lines = evaluate(shell, toy_root, "toy_class_mix")
    assert not any(line.startswith(("published", "|")) for line in lines)
    assert "published" not in facts_written()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "compared"), [("toy_class_mix", False), ("logged_aagc_640x360_b2", True)]
)
def test_training_ends_with_the_comparison(
    preset: str, compared: bool, shell: Shell, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset's name decides; what runs is small under either."""
    monkeypatch.setitem(PRESETS, preset, PRESETS["toy_class_mix"])
    options = (*tiny_options(toy_root), "--set", "objectives.class_mix.start_step=1")
    lines = scored(shell, "train_uda.py", "--preset", preset, *options)
    captions = [line for line in lines if line.startswith("published: ")]
    assert len(captions) == compared
    if compared:
        assert captions[0].startswith(
            "published: aagc_640x360_b2 at step 40000 of the log (ours: step 3), "
        )
