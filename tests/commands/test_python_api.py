"""The Python API: docs/python.md runs, and numbers are those of the commands."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import uda
import uda.experiments
from factories import ColorSegmenter, colors_of, noise, write_png
from shells import Shell, Trained, table
from tiny_runs import CPU, REPOSITORY, tiny_preset
from uda.experiment import Experiment
from uda.prediction.images import Pictures

PAGE = REPOSITORY / "docs/python.md"


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_root: Path
) -> None:
    """Its presets are shrunk to four steps on a tiny toy city."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy_city").symlink_to(toy_root)

    def tiny(name: str) -> Experiment:
        return tiny_preset(name, Path("data/toy_city"), steps=4)

    monkeypatch.setattr(uda.experiments, "load_preset", tiny)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) > 5
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    assert (tmp_path / "predictions/ids/00001.png").is_file()


def test_overrides_are_those_of_the_command_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    toy_root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def tiny(name: str) -> Experiment:
        return tiny_preset(name, toy_root, steps=4)

    monkeypatch.setattr(uda.experiments, "load_preset", tiny)
    overrides = ["objectives.class_mix=none", "train.optimizer=adamw", "data.target=none"]
    result = uda.train("toy_class_mix", overrides=overrides, smoke=True, device="cpu")
    assert result.facts["step"] == 10
    said = capsys.readouterr().out
    assert "objectives       supervised\n" in said
    assert "remark: teacher" in said
    assert (tmp_path / "snapshots/toy_class_mix_smoke/GTA5_10.pth").is_file()
    with pytest.raises(uda.InputError, match=r"teacher\.momentum"):
        uda.train("toy_class_mix", overrides=[*overrides, "teacher.momentum=0.5"])


def test_scores_are_those_of_the_command(shell: Shell, trained: Trained, toy_root: Path) -> None:
    options = ("--restore-from", str(trained.snapshot), "--workers", "0", "--device", "cpu")
    printed = shell.run("eval_single.py", *options)
    result = uda.evaluate(trained.snapshot, workers=0, device="cpu")
    ours = str(result)
    assert table(ours) == table(printed)
    assert set(ours.splitlines()) == set(printed.splitlines())
    assert result.protocol in printed
    assert list(result.iou) == list(result.label_space.classes)
    assert np.isnan([result.iou[name] for name in result.absent]).all()
    assert result.facts["supervision"] == "none"


def test_what_goes_in_does_not_matter(tmp_path: Path) -> None:
    """A file, a folder, a picture, an array, tensors: the same classes, worked out by hand."""
    ids = np.repeat(np.repeat(np.array([[0, 10], [13, 18]], np.uint8), 16, 0), 24, 1)
    pixels = colors_of(ids, green=48)  # a logit of 48 / 16
    write_png(tmp_path / "in/a.png", pixels)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    network = ColorSegmenter()
    several: tuple[Pictures, ...] = (
        tmp_path / "in/a.png",
        str(tmp_path / "in"),
        [tmp_path / "in/a.png"],
        Image.fromarray(pixels),
        pixels,
        pixels[None],
        tensor,
        tensor[None],
        tensor.float() / 255,
        [tensor],
    )
    for images in several:
        (found,) = uda.predict(network, images)
        assert found.labels.dtype == torch.int64
        assert np.array_equal(found.labels.numpy(), ids)
        probability = np.e**3 / (np.e**3 + 18)
        assert torch.allclose(found.confidence, torch.tensor(probability).float())


def test_images_keep_their_order_and_names(tmp_path: Path) -> None:
    network = ColorSegmenter()
    for name, seed in {"b.png": 1, "a.png": 2, "deep/c.png": 3}.items():
        write_png(tmp_path / name, noise(seed, (20 + seed, 32)))
    names = [found.name for found in uda.predict(network, tmp_path)]
    assert names == ["a.png", "b.png", "deep/c.png"]
    files = [str(tmp_path / name) for name in ("b.png", "a.png")]
    found = uda.predict(network, files)
    assert [(f.name, f.labels.shape[0]) for f in found] == [(files[0], 21), (files[1], 22)]
    batch = np.stack([noise(1), noise(2)])
    assert [f.name for f in uda.predict(network, batch)] == ["0", "1"]


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (np.zeros((4, 4), np.uint8), "image 0 is uint8 \\(4, 4\\); allowed: arrays"),
        (np.zeros((4, 4, 3)), "image 0 is float64"),
        (torch.zeros(1, 4, 4), "image 0 is torch.float32"),
        (torch.full((3, 4, 4), 255.0), "values outside 0..1: divide by 255"),
        (torch.full((3, 4, 4), float("nan")), "values outside 0..1"),
        ([], "there is no image"),
        ([3], "image 0 is a int"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_images_that_cannot_be(images: object, complaint: str) -> None:
    with pytest.raises(uda.InputError, match=complaint):
        uda.predict(ColorSegmenter(), images)  # type: ignore[call-overload]


def test_what_cannot_be_asked(trained: Trained, tmp_path: Path, toy_root: Path) -> None:
    network = ColorSegmenter()
    with pytest.raises(uda.InputError, match="a network alone has no data set: name one"):
        uda.evaluate(network)
    with pytest.raises(uda.InputError, match="the network is a Linear; allowed: a Segmenter"):
        uda.evaluate(torch.nn.Linear(1, 1), "cityscapes", data_root=toy_root)  # type: ignore[arg-type]
    with pytest.raises(uda.InputError, match="joins two heads"):
        uda.predict(network, noise(1), protocol="mrnet")
    with pytest.raises(uda.InputError, match="there is no protocol 'nativ'"):
        uda.predict(network, noise(1), protocol="nativ")
    with pytest.raises(uda.InputError, match="give images as the path of a folder"):
        uda.predict(trained.snapshot, noise(1), output=tmp_path)  # type: ignore[call-overload]
    with pytest.raises(uda.InputError, match="give the network as the path of its file"):
        uda.predict(network, tmp_path, output=tmp_path)  # type: ignore[call-overload]
    with pytest.raises(uda.InputError, match="an Experiment has no name: give a folder"):
        uda.train(tiny_preset("toy_class_mix", toy_root))
    with pytest.raises(uda.InputError, match="--device abacus"):
        uda.evaluate(trained.snapshot, device="abacus")


def test_an_experiment_is_not_changed_and_its_run_continues(tmp_path: Path, toy_root: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    first = uda.train(experiment, run=tmp_path / "run", device=CPU, overrides=["train.seed=5"])
    assert experiment.train.seed == 0
    with pytest.raises(uda.InputError, match="holds a run already"):
        uda.train(experiment, run=tmp_path / "run", device=CPU, overrides=["train.seed=5"])
    again = uda.train(
        experiment, run=tmp_path / "run", device=CPU, overrides={"train.seed": 5}, resume=True
    )
    assert again.iou == pytest.approx(first.iou, nan_ok=True)
    assert str(first.facts["snapshot"]) == str(tmp_path / "run/GTA5_2.pth")


def test_import_is_light() -> None:
    program = (
        "import sys, uda; print([n for n in ('torch', 'numpy', 'argparse') if n in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert shown == "[]\n"


@pytest.mark.slow
def test_nothing_below_the_api_knows_the_command_line() -> None:
    program = (
        "import sys, uda.prediction.scoring, uda.prediction.folder, uda.training.loop; "
        "import uda.experiments; print([n for n in sys.modules if n.startswith('uda.commands')])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert shown == "[]\n"
