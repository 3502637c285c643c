"""The numbers of papers: complete, beside ours with what is different, and listed by year."""

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from uda import experiments
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.metrics import Scores
from uda.evaluation.protocols import PROTOCOLS
from uda.experiments import PRESETS, listed
from uda.experiments.listed import list_presets
from uda.experiments.paper_numbers import Number, Paper, paper_of
from uda.experiments.published import compare

ROWS: dict[str, dict[str, Any]] = json.loads(
    resources.files("uda.experiments").joinpath("papers.json").read_text("utf-8")
)
OURS = Scores(iou=(0.5,) * 19, miou=0.5, pixel_accuracy=0.5, absent=(), confusion=())
DAFORMER = EvaluationConfig.following("daformer", dataset="cityscapes")


def paper(name: str) -> Paper:
    found = paper_of(name)
    assert found is not None
    return found


# --- papers.json


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_complete(name: str) -> None:
    found = paper(name)
    assert 2018 <= found.year <= 2030
    assert "" not in (found.title, found.venue)
    assert len(found.arxiv) == 10
    for number in found.numbers:
        assert 10 < number.miou < 90
        assert number.selection in ("last step", "best on validation labels", "not said")
        assert number.protocol is None or number.protocol in PROTOCOLS or " " in number.protocol
        assert (number.note + number.spread).isascii()


def test_presets_of_papers_and_rows_belong_together() -> None:
    """So that --list can show the year of each, and no row is forgotten."""
    studies = (s for name, s in experiments.STUDIES.items() if name.startswith("papers_"))
    of_papers = [preset.name for study in studies for preset in study.presets]
    without_row = [name for name in of_papers if name not in ROWS]
    without_preset = [name for name in ROWS if name not in PRESETS]
    assert (without_row, without_preset) == ([], [])


# --- beside ours


def test_a_number_stands_beside_ours_with_what_is_different() -> None:
    text, facts = compare(OURS, "hrda_gta5", 20_000, DAFORMER)
    lines = text.splitlines()
    assert lines[:2] == [
        "published: HRDA (ECCV 2022, arXiv 2204.13132), cityscapes val, 19 classes: "
        "73.80 (README); protocol hrda; 3 seeds; last step, 40000 steps",
        "ours differs: protocol daformer, theirs hrda; step 20000, theirs 40000; one seed",
    ]
    assert (
        "also reported: 72.80 (ProCST#2); protocol not said; 8 seeds; selection not said" in lines
    )
    assert lines[-3:] == [
        "| class | ours | published | difference |",
        "| --- | ---: | ---: | ---: |",
        "| mIoU | 50.00 | 73.80 | -23.80 |",
    ]
    assert facts["published"] == {
        "preset": "hrda_gta5", "step": 40_000, "miou": 73.8, "protocol": "hrda",
        "selection": "last step", "seeds": 3, "source": "README",
    }  # fmt: skip


def test_a_number_chosen_by_labels_says_so() -> None:
    text, _ = compare(OURS, "advent_gta5", 120_000, DAFORMER)
    published, differs = text.splitlines()[:2]
    assert "seeds not said, 43.3 to 44.1 (ADVENT#6); best on validation labels, 120000" in published
    assert differs.endswith("; one seed; not selected by validation labels")


def test_the_same_protocol_step_and_seeds_differ_in_nothing() -> None:
    number = Number(miou=60, source="paper", protocol="daformer", selection="last step", seeds=1,
                    step=10)  # fmt: skip
    assert number.differences(10, DAFORMER) == []
    assert number.line() == "60.00 (paper); protocol daformer; 1 seed; last step, 10 steps"


@pytest.mark.parametrize(
    ("preset", "evaluation"),
    [
        ("minent_gta5", DAFORMER),  # no number
        ("hrda_gta5", EvaluationConfig(dataset="cityscapes", split="train")),
        ("hrda_gta5", EvaluationConfig(dataset="gta5")),
        ("hrda_gta5 (smoke)", DAFORMER),
    ],
)
def test_nothing_to_compare(preset: str, evaluation: EvaluationConfig) -> None:
    assert compare(OURS, preset, 40_000, evaluation) == ("", {})


# --- the list


def test_theirs_in_words() -> None:
    assert paper("daformer_gta5").theirs == "68.3 mIoU, 9.7 GB, 16 h on one RTX 2080 Ti"
    assert paper("mic_daformer_gta5").theirs == "on one RTX 2080 Ti"
    assert paper("minent_gta5").theirs == ""
    assert paper("vfm_uda_gta5_b").theirs == "77.1 mIoU"


STUDY = '''"""Papers."""

from uda.experiments import load_preset


def proda_gta5_distill():
    """ProDA's stages 2 and 3, and a description that is longer than what fits into a line."""
    return load_preset("toy_class_mix_student")


def unknown_gta5():
    """Without a row."""
    return load_preset("toy_oracle")


def adaptsegnet_gta5():
    """AdaptSegNet on two levels."""
    return load_preset("toy_class_mix")
'''


def test_the_list_shows_papers_by_year_between_the_log_and_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "papers_test.py").write_text(STUDY)
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    studies = experiments._studies()
    own = {n: s for n, s in studies.items() if n == "papers_test" or not n.startswith("papers_")}
    monkeypatch.setattr(listed, "STUDIES", own)
    monkeypatch.setattr(listed, "stored", dict)
    monkeypatch.setitem(sys.modules, "uda.experiments.papers_test", None)
    del sys.modules["uda.experiments.papers_test"]  # imported here, and gone afterwards

    blocks = list_presets().split("\n\n")
    place = next(i for i, block in enumerate(blocks) if block.startswith("Methods as their papers"))
    assert blocks[place - 1].startswith("The experiment log's runs with one level, as they were")
    assert "Papers." not in "\n".join(blocks)
    indent, fits = " " * 30, "ProDA's stages 2 and 3, and a description that is longer than what"
    assert blocks[place].splitlines()[2:] == [
        "2018:",
        "  adaptsegnet_gta5            AdaptSegNet on two levels.",
        f"{indent}CVPR 2018, arXiv 1802.10349; DeepLabV3Plus on resnet18",
        f"{indent}supervision none; theirs: 42.4 mIoU",
        "2021:",
        f"  {'proda_gta5_distill':<28}{fits}",
        f"{indent}fits into a line.",
        f"{indent}CVPR 2021, arXiv 2101.10979; DeepLabV3Plus on resnet18",
        f"{indent}supervision pseudo; theirs: 56.9 mIoU, on 4 GPUs of 16 GB or more",
        "year unknown:",
        "  unknown_gta5                Without a row.",
        f"{indent}DeepLabV3Plus on resnet18",
        f"{indent}supervision ground truth",
    ]
    assert max(map(len, blocks[place].splitlines())) <= 100
