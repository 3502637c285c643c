"""The presets of papers from SYNTHIA, to ACDC and to Dark Zurich: as those from GTA5 to Cityscapes
but for what their authors change."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from street_sets import ORIGINALS
from tiny_runs import CPU, tiny_preset
from uda.checkpoints.snapshots import load
from uda.data.registry import layout_named
from uda.evaluation.evaluate import protocol_line
from uda.experiment import Experiment, validate
from uda.experiments import PRESETS, load_preset
from uda.experiments.paper_numbers import paper_of
from uda.objectives.masked_image import MaskedImageConfig
from uda.training.loop import train
from uda.utilities.config_tree import differences, to_plain

SYNTHIA = [name for name in PRESETS if "_synthia" in name]
ADVERSE = [name for name in PRESETS if name.endswith(("_acdc", "_dark_zurich"))]
SETS = ("miou16_subset", "miou13_subset", "miou16_restricted")


def changes(name: str, of: str) -> set[str]:
    return set(differences(to_plain(load_preset(of)), to_plain(load_preset(name))))


def domains(experiment: Experiment) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
    data = experiment.data
    assert data.source is not None
    assert data.target is not None
    return [(domain.datasets, domain.size) for domain in (data.source, data.target)]


def test_there_are_twins_of_the_methods_that_report_them() -> None:
    assert set(SYNTHIA) == {
        *(f"{name}_synthia" for name in ("adaptsegnet", "advent", "fda", "dacs", "daformer",
                                         "hrda", "mic_hrda")),
        *(f"proda_synthia_{stage}" for stage in ("warmup", "denoise", "distill", "distill_again")),
        "vfm_uda_plusplus_synthia_b",
    }  # fmt: skip
    adverse = {f"{m}_{to}" for m in ("daformer", "hrda", "mic_hrda")
               for to in ("acdc", "dark_zurich")}  # fmt: skip
    assert set(ADVERSE) == adverse | {"vfm_uda_plusplus_dark_zurich"}


@pytest.mark.parametrize("name", SYNTHIA)
def test_from_synthia_only_the_source_and_the_printed_means_change(name: str) -> None:
    ends = {"vfm_uda_plusplus_synthia_b": "vfm_uda_plusplus_gta5"}
    changed = changes(name, ends.get(name, name.replace("_synthia", "_gta5")))
    lines_before = {"data.pseudo_labels", "train.initial_snapshot",
                    "objectives.distillation.network"}  # fmt: skip
    of_b = {"model.encoder.name", "model.encoder.weights", "train.optimizer.lr",
            "objectives.frozen_distance.optimizer.lr"}  # fmt: skip
    allowed = {"data.source.datasets", "data.source.size", "data.source.crop", "evaluation.sets"}
    allowed |= lines_before if name.startswith("proda") else set()
    allowed |= of_b if name in ends else set()
    assert changed <= allowed
    experiment = load_preset(name)
    assert experiment.data.source is not None
    assert experiment.data.source.datasets == ("synthia",)
    assert experiment.evaluation.sets == SETS
    assert "gta5" not in str(to_plain(experiment)).lower()
    space = layout_named("synthia").label_space
    assert [space.classes[i] for i in space.not_scored] == ["terrain", "truck", "train"]
    assert len(experiment.evaluation.class_sets(space)) == 3
    validate(experiment)


def test_sizes_of_synthia() -> None:
    assert domains(load_preset("daformer_synthia"))[0] == (("synthia",), (760, 1280))
    for name in ("hrda_synthia", "mic_hrda_synthia"):
        assert domains(load_preset(name)) == [
            (("synthia",), (1520, 2560)),
            (("cityscapes",), (1024, 2048)),
        ]
    whole = load_preset("advent_synthia").data.source
    assert whole is not None
    assert (whole.size, whole.crop) == ((760, 1280), (760, 1280))


def test_stages_of_proda_read_those_before_them() -> None:
    denoise, distill = load_preset("proda_synthia_denoise"), load_preset("proda_synthia_distill")
    assert denoise.train.initial_snapshot == "snapshots/proda_synthia_warmup/SYNTHIA_90000.pth"
    assert distill.data.pseudo_labels == "snapshots/proda_synthia_denoise/pseudo_labels"
    assert layout_named("synthia").short_name == "SYNTHIA"


@pytest.mark.parametrize("name", ADVERSE)
def test_to_adverse_conditions(name: str) -> None:
    experiment = load_preset(name)
    (source, _), (target, _) = domains(experiment)
    dataset = "acdc" if name.endswith("acdc") else "dark_zurich"
    assert (source, target, experiment.evaluation.dataset) == (
        ("cityscapes",), (dataset,), dataset
    )  # fmt: skip
    assert not experiment.data.target_ground_truth
    assert set(experiment.data.target.splits) <= set(layout_named(dataset).splits)  # type: ignore[union-attr]
    validate(experiment)


@pytest.mark.parametrize("dataset", ["acdc", "dark_zurich"])
def test_sizes_protocols_and_borders_of_adverse_conditions(dataset: str) -> None:
    plain, hrda, mic = (load_preset(f"{m}_{dataset}") for m in ("daformer", "hrda", "mic_hrda"))
    assert domains(plain) == [(("cityscapes",), (512, 1024)), ((dataset,), (540, 960))]
    assert domains(hrda) == [(("cityscapes",), (1024, 2048)), ((dataset,), (1080, 1920))]
    assert "input 960x540, shape kept" in protocol_line(plain.evaluation)
    assert protocol_line(hrda.evaluation).startswith(f"hrda on {dataset} val:")
    assert plain.objectives["class_mix"].ignored_rows == (15, 120)  # type: ignore[attr-defined]
    for experiment in (hrda, mic):
        assert experiment.data.target is not None
        assert experiment.data.target.ignored_borders is None
        assert experiment.objectives["class_mix"].ignored_rows == (0, 0)  # type: ignore[attr-defined]
    masked = mic.objectives["masked_image"]
    assert isinstance(masked, MaskedImageConfig)
    assert (masked.images, masked.jitter, masked.block) == ("source_and_target", None, 64)
    same = asdict(plain.train) | {"precision": ""}
    assert same == asdict(load_preset("daformer_gta5").train) | {"precision": ""}


def test_vfm_uda_plusplus_on_dark_zurich_sees_all_times_of_day() -> None:
    target = load_preset("vfm_uda_plusplus_dark_zurich").data.target
    assert target is not None
    assert target.splits == ("train", "train_twilight", "train_day")
    assert load_preset("mic_hrda_dark_zurich").data.target.splits == ("train",)  # type: ignore[union-attr]


def test_three_synthetic_sets_with_weights() -> None:
    experiment = load_preset("vfm_uda_plusplus_all_synthetic")
    source = experiment.data.source
    assert source is not None
    assert source.datasets == ("gta5", "synthia", "urbansyn")
    assert source.weights == (1.0, 1.0, 1.0)
    assert source.size == (1440, 11520)


def test_from_synthia_as_it_is_downloaded_to_the_printed_means(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a run with weights of three synthetic sets beside it, in which all classes are scored."""
    for name in ("synthia", "urbansyn"):
        ORIGINALS[name].write_to(tmp_path / "data")
    for folder in ("Cityscapes", "GTA5"):
        (tmp_path / "data" / folder).symlink_to(toy_root / folder)
    experiment = tiny_preset("toy_class_mix", tmp_path / "data", steps=2)
    assert experiment.data.source is not None
    experiment.data.source.datasets = ("synthia",)
    experiment.evaluation.sets = SETS
    scores = train(experiment, tmp_path / "run", preset="tiny", device=CPU)
    stored = load(tmp_path / "run/SYNTHIA_2.pth").scores
    assert stored is not None
    assert stored["not_scored"] == "terrain, truck, train"
    assert stored["sets"]["miou16_subset"]["value"] == stored["miou"]
    assert scores.unscored == (9, 14, 16)
    assert "over 16 of 19 classes" in capsys.readouterr().out
    experiment.data.source = replace(
        experiment.data.source, datasets=("synthia", "gta5", "urbansyn"), weights=(1.0, 1.0, 1.0)
    )
    assert train(experiment, tmp_path / "three", preset="tiny", device=CPU).unscored == ()
    assert "synthia 33.3 % (2 images), gta5 33.3 % (6 images), urban" in capsys.readouterr().out


def test_numbers_name_their_classes_and_test_sets() -> None:
    for name in ("daformer_synthia", "hrda_synthia", "mic_hrda_synthia"):
        paper = paper_of(name)
        assert paper is not None
        assert {number.classes for number in paper.numbers} == {16}
    for name in ADVERSE:
        paper = paper_of(name)
        assert paper is not None
        first = paper.numbers[0]
        split = "val" if name.startswith("vfm") else "test"
        assert (first.dataset, first.split) == (load_preset(name).evaluation.dataset, split)
