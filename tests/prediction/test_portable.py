"""Networks as files of ONNX and torch.export: they compute what the network does, or are not
there."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import uda
from factories import ColorSegmenter, colors_of, noise, tiny_snapshot
from tiny_runs import CPU
from uda.checkpoints.snapshots import save, snapshot_values
from uda.commands.main import main
from uda.experiments import load_preset
from uda.labels.spaces import CITYSCAPES
from uda.models.decoders.base import decoder_configs
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.prediction.opened import OpenedNetwork, open_network
from uda.prediction.portable import ExportOptions, export_network
from uda.prediction.portable_checks import Reference
from uda.prediction.portable_formats import FORMATS
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch writes down how it traces: megabytes that pytest would keep."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portable") / "GTA5_7.pth"
    save(snapshot_values(tiny_snapshot(load_preset("gc_640x360_b2_class_mix"))), path)
    return path


def opened(snapshot: Path, segmenter: Segmenter | None = None) -> OpenedNetwork:
    """A snapshot, with another network in the place of its own."""
    found = open_network(snapshot, device=CPU, data=False)
    return found if segmenter is None else replace(found, segmenter=segmenter)


class Fixed(ColorSegmenter):
    """A network whose program is one for a single image: it reads sizes as numbers."""

    def decode(self, features: tuple[Tensor, ...]) -> SegmentationOutput:
        assert len(features[0]) < 4
        return super().decode(features)


@pytest.mark.slow
def test_onnx_of_any_size_computes_the_labels_of_predict(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "city.onnx"
    options = ("--output", str(path), "--outputs", "labels", "confidence")
    assert main(["export", "--restore-from", str(snapshot), *options]) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["format"] == "ONNX, opset 18"
    assert shown["input"].endswith("; N any, H and W any")
    assert shown["snapshot"].startswith("GTA5_7.pth sha256:")
    assert "input 128x64" in shown["not in the file"]
    checks = [text for name, text in shown.items() if name.startswith("check, ")]
    assert [text[:13] for text in checks] == ["labels equal,"] * 2
    session = onnxruntime.InferenceSession(path)
    stored = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(stored["classes"])) == CITYSCAPES.classes
    assert json.loads(stored["palette"])[0] == [128, 64, 128]
    assert (stored["supervision"], stored["preset"]) == ("none", "tiny")
    network = uda.load(snapshot)
    for count, size in ((1, (65, 97)), (3, (40, 130))):
        images = np.stack([noise(seed, size) for seed in range(count)])
        labels, confidence = session.run(None, {"images": images})
        found = uda.predict(network, images)
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, torch.stack([f.labels for f in found]).numpy())
        assert np.allclose(confidence, torch.stack([f.confidence for f in found]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "decoder", "hrda", "size", "taken"),
    [
        ("mit_b0", "segformer", None, None, "N any, H and W any"),
        ("mit_b0", "linear", HrdaConfig(crop=64), (96, 128), "N any, H 96, W 128"),
        ("dinov3_vits16", "linear", None, None, "N any, H and W multiples of 16, at least 64"),
        ("dinov2_vits14", "linear", None, (50, 70), "N any, H 50, W 70"),
    ],
)
def test_onnx_of_transformers(
    encoder: str,
    decoder: str,
    hrda: HrdaConfig | None,
    size: tuple[int, int] | None,
    taken: str,
    tmp_path: Path,
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    config = EncoderDecoderConfig(
        encoder=EncoderConfig(name=encoder, weights="none"),
        decoder=decoder_configs()[decoder](),
        hrda=hrda,
    )
    experiment = load_preset("toy_source_only")
    snapshot = tiny_snapshot(experiment)
    snapshot.experiment = to_plain(experiment) | {
        "model": {"type": type(config).__name__} | to_plain(config)
    }
    torch.manual_seed(0)
    snapshot.student = config.build(19).state_dict()
    save(snapshot_values(snapshot), tmp_path / "a.pth")
    written = uda.export(tmp_path / "a.pth", tmp_path / "a.onnx", size=size)
    assert str(written.facts["input"]).endswith(taken)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    images = torch.stack([torch.from_numpy(noise(s, size or (80, 144))) for s in range(3)])
    (labels,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        logits = uda.load(tmp_path / "a.pth")(images.movedim(3, 1) / 255).logits
    found = {"labels": torch.from_numpy(labels)}
    check = Reference("noise", images, logits).check(found, difference=1e-5)
    assert check.equal


_ELSEWHERE = """
import json, sys, torch
facts = {"uda.json": ""}
program = torch.export.load("city.pt2", extra_files=facts).module()
images = torch.load("images.pt")
torch.save([program(i) for i in images], "found.pt")
print([name for name in sys.modules if name.split(".")[0] == "uda"])
print(json.loads(facts["uda.json"])["classes"][18])
"""


@pytest.mark.slow
def test_a_program_of_torch_runs_in_a_process_without_this_library(
    snapshot: Path, tmp_path: Path
) -> None:
    written = uda.export(
        snapshot, tmp_path / "city.pt2", outputs=("logits", "labels"), pixels="float", size=(50, 70)
    )
    assert [check.difference for check in written.checks] == [0.0, 0.0]
    images = [torch.rand(count, 3, 50, 70) for count in (1, 3)]
    torch.save(images, tmp_path / "images.pt")
    ran = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["[]", "bicycle"]
    network = uda.load(snapshot)
    for image, (logits, labels) in zip(images, torch.load(tmp_path / "found.pt"), strict=True):
        with torch.no_grad():
            ours = network(image).logits
        assert torch.equal(logits, ours)
        assert torch.equal(labels.long(), ours.argmax(dim=1))


@pytest.mark.slow
def test_what_a_camera_gives_goes_in(snapshot: Path, tmp_path: Path) -> None:
    """Bytes, rows, columns, colors: of each pixel, the class that its red value says."""
    ids = np.random.default_rng(0).integers(0, 19, (20, 30), dtype=np.uint8)
    export_network(
        opened(snapshot, ColorSegmenter()),
        tmp_path / "a.pt2",
        snapshot=snapshot,
        options=ExportOptions(format="torch"),
    )
    program: Any = torch.export.load(tmp_path / "a.pt2").module()
    (labels,) = program(torch.from_numpy(colors_of(ids))[None])
    assert labels.dtype == torch.uint8
    assert np.array_equal(labels[0].numpy(), ids)


@pytest.mark.slow
def test_sides_that_a_network_divides_and_fixed_sizes(snapshot: Path, tmp_path: Path) -> None:
    network = ColorSegmenter()
    network.divisor = 14
    made = opened(snapshot, network)
    free = ExportOptions(format="torch")
    found = export_network(made, tmp_path / "free.pt2", snapshot=snapshot, options=free)
    assert str(found.facts["input"]).endswith("N any, H and W multiples of 14, at least 70")
    fixed = ExportOptions(format="torch", size=(30, 45))
    found = export_network(made, tmp_path / "fixed.pt2", snapshot=snapshot, options=fixed)
    assert str(found.facts["input"]).endswith("; N any, H 30, W 45")


def test_a_network_that_counts_its_images_takes_one_of_a_fixed_size(
    snapshot: Path, tmp_path: Path
) -> None:
    made, path = opened(snapshot, Fixed()), tmp_path / "a.pt2"
    with pytest.raises(InputError, match=r"no program for any size .*: --size WIDTHxHEIGHT"):
        export_network(made, path, snapshot=snapshot, options=ExportOptions(format="torch"))
    options = ExportOptions(format="torch", size=(64, 96))
    found = export_network(made, path, snapshot=snapshot, options=options)
    assert str(found.facts["input"]).endswith("; N 1, H 64, W 96")


@pytest.mark.parametrize("written", [False, True])
def test_a_program_that_computes_something_else_is_not_left_behind(
    written: bool, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it disagrees in memory nor when only the file does."""
    torch_format = type(FORMATS["torch"])
    if written:
        original = torch_format.read

        def read(*arguments: Any) -> Any:  # noqa: ANN401
            run = original(*arguments)
            return lambda images: {n: 18 - t for n, t in run(images).items()}

        monkeypatch.setattr(torch_format, "read", read)
    else:

        def forward(self: Any, images: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
            logits = self.segmenter(images.movedim(3, 1) / 254).logits
            return logits.argmax(1).to(torch.uint8), logits

        monkeypatch.setattr("uda.prediction.portable_network.PortableNetwork.forward", forward)
    options = ExportOptions(format="torch", size=(64, 64))
    with pytest.raises(InputError, match="it does not compute what the network does") as refusal:
        export_network(
            opened(snapshot, ColorSegmenter()), tmp_path / "a.pt2",
            snapshot=snapshot, options=options,
        )  # fmt: skip
    assert f"{tmp_path / 'a.pt2'} is not written" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_rounding_decides_ties_and_nothing_else() -> None:
    """Classes of three pixels, the second nearly even, by hand."""
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.00001, 3.0]]).view(1, 2, 1, 3)
    reference = Reference("by hand", torch.empty(0), logits)

    tiny = Reference("by hand", torch.empty(0), logits / 1e6)
    wrong = {"labels": torch.tensor([[[1, 0, 1]]]), "logits": logits / 1e6 + 1e-6}
    assert not tiny.check(wrong).agrees  # nothing is equal only because all is small

    def check(labels: list[int], off: float) -> tuple[bool, bool, int]:
        found = {"labels": torch.tensor(labels).view(1, 1, 3), "logits": logits + off}
        checked = reference.check(found)
        return checked.agrees, checked.equal, checked.ties

    assert check([0, 1, 1], 0.0) == (True, True, 0)
    assert check([0, 0, 1], 1e-5) == (True, True, 1)
    assert check([0, 0, 1], 0.0) == (False, False, 1)
    assert check([1, 1, 1], 1e-5) == (False, False, 1)
    assert check([0, 1, 1], 1e-3) == (False, True, 0)
    assert check([0, 0, 1], 1e-3) == (False, False, 1)
    assert check([0, 1, 1], float("nan")) == (False, True, 0)


def test_what_cannot_be_written(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "taken.pt2"
    taken.write_text("something")
    for output, options, complaint in (
        (taken, {}, "taken.pt2 exists already"),
        (tmp_path / "no/a.pt2", {}, "is not a folder: create it"),
        (tmp_path / "a.pth", {}, r"a.pth: give a name that ends in .onnx or .pt2"),
        (tmp_path / "a.pt2", {"outputs": ()}, "allowed: one or more of labels"),
        (tmp_path / "a.pt2", {"pixels": "bytes"}, "pixels: 'bytes'; allowed: uint8, float"),
        (tmp_path / "a.pt2", {"size": (0, 5)}, "size"),
    ):
        with pytest.raises(InputError, match=complaint):
            uda.export(snapshot, output, **options)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the package onnxscript.*pip install 'uda\[onnx\]"):
        uda.export(snapshot, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == [taken]
