"""The page of a run: facts, curves, warnings, confusion, reliability, pictures."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapted_folders import EVIL
from report_pages import Element, page_of, rows_of
from shells import NAMES, Trained
from uda.commands.main import main
from uda.evaluation.metrics import ConfusionMatrix
from uda.labels.spaces import CITYSCAPES
from uda.reports.charts import line_charts, sparkline
from uda.reports.looking import Compared, looked_at
from uda.reports.per_image import read_per_image
from uda.reports.run_files import FoundRun, Run
from uda.reports.run_log import read_log
from uda.reports.run_page import run_page
from uda.utilities.errors import InputError

HOW = "uda report RUN --images 20"


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """snapshots/mine, a run of three steps."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained.snapshot.parent, tmp_path / "snapshots/mine"))


def found(folder: Path, names: tuple[str, ...] = CITYSCAPES.report_names) -> FoundRun:
    """A run that nothing but its folder is known of."""
    facts = {"preset": "p", "step": "100", "supervision": "none"}
    run = Run("made", facts, "native on x val: y", 100, 50.0, dict.fromkeys(names, 50.0), None)
    return FoundRun(run, folder, None, {"model": {"name": EVIL}}, None)


def tables(page: Element, caption: str) -> list[list[str]]:
    """The rows of the table whose caption begins so, without its head."""
    (table,) = (
        t for t in page.all("table")
        if any(c.text.startswith(caption) for c in t.all("caption"))
    )  # fmt: skip
    return rows_of(table)[1:]


def test_uda_report_writes_the_page_of_one_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "mine"]) == 0
    assert "page: snapshots/mine/report.html" in capsys.readouterr().err
    page = page_of(run / "report.html")
    snapshot: dict[str, Any] = torch.load(run / "GTA5_3.pth", weights_only=True)
    miou = f"{snapshot['scores']['miou']:.2f}"
    assert f"mIoU {miou} at step 3" in page.text
    assert snapshot["scores"]["protocol"] in page.text
    facts = dict(rows_of(page.all("table")[0]))
    assert facts["preset"] == "toy_class_mix"
    assert facts["target"] == "cityscapes"
    assert "torch" in facts["versions"]
    assert tables(page, "IoU in percent")[0][:2] == ["mIoU", miou]
    assert [row[0] for row in tables(page, "IoU in percent")[1:]] == list(NAMES)
    headings = [heading.text for heading in page.all("h2")]
    assert {"Losses", "Rates", "Scores", "Criteria without labels"} <= set(headings)
    assert "uda report mine --images 20" in page.text
    assert '"objectives": {' in page.all("pre")[0].text  # the whole preset
    for chart in page.all("svg", role="img"):
        assert " from " in str(chart.attributes["aria-label"])


def test_images_add_confusion_reliability_and_pictures(run: Path) -> None:
    arguments = ["--images", "2", "--against", str(run / "GTA5_3.pth"), "--workers", "0"]
    assert main(["report", "mine", *arguments, "--output", "page.html"]) == 0
    page = page_of(Path("page.html"))
    assert "2 of 3 labeled images" in page.text
    (shown,) = page.all("ul", id="list")
    assert len(shown.children) == 2
    assert {item.attributes["data-changed"] for item in shown.children} == {"0.00000"}
    assert len(shown.all("img")) == 2 * 6
    kept = read_per_image(run)
    assert kept is not None
    assert kept.snapshot == "GTA5_3.pth"
    leaks = tables(page, "Classes by the share")
    assert [float(row[1]) for row in leaks] == sorted((float(r[1]) for r in leaks), reverse=True)
    pixels = dict(zip(NAMES, kept.counts.sum(axis=(0, 2)).tolist(), strict=True))
    assert {row[0]: int(row[2]) for row in leaks} == {n: p for n, p in pixels.items() if p}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mine", "mine/", "--images", "2", "--against", "x.pth"], "--against is for the page of"),
        (["mine", "--against", "x.pth"], "--against compares what two networks see: add --images"),
        (["mine", "--output", "no/x.html"], "--output no/x.html: give a file in a folder that"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], complaint: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, run.parent / "other")
    with pytest.raises(SystemExit):
        main(["report", *(a.replace("mine/", "other") for a in arguments)])
    assert complaint in capsys.readouterr().err


def test_leaks_reliability_and_order_by_hand(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 0, 0], [1, 1, 2, 255]], np.uint8)
    predicted = np.array([[0, 0, 0, 1], [0, 0, 2, 2]], np.uint8)
    confidence = np.full((2, 4), 0.9, np.float32)
    image = Compared("a", np.zeros((2, 4, 3), np.uint8), labels, predicted, confidence, None)
    space = CITYSCAPES
    looked = looked_at([image], space, 1, "native", available=5)
    path = run_page(found(tmp_path), tmp_path / "x.html", looked=looked, how_to_look=HOW)
    page = page_of(path)
    road, sidewalk, building = space.report_names[:3]
    assert tables(page, "Classes by the share") == [
        [sidewalk, "100.00", "2", f"{road} 100.0 %"],
        [road, "25.00", "4", f"{sidewalk} 25.0 %"],
        [building, "0.00", "1", ""],
    ]
    # 4 of 7 are right, all with confidence 0.9.
    assert "calibration error: 32.86 percentage points" in page.text
    assert rows_of(page.all("table")[-1])[1] == ["0.87 to 0.93", "100.00", "90.00", "57.14"]
    (item,) = page.all("ul", id="list")[0].children
    # IoU: 3 of 6, 0 of 3, 1 of 1 (the pixel without a label does not count).
    assert item.attributes["data-class-0"] == "0.500"
    assert item.attributes["data-class-1"] == "0.000"
    assert item.attributes["data-miou"] == "0.50000"


def test_names_and_texts_of_files_stay_text(tmp_path: Path) -> None:
    lines = [
        {"step": 1, f"loss/{EVIL}": 1.0, f"iou/{EVIL}": 0.5, f"predicted/{EVIL}": 0.1, "miou": 0.5},
        {"step": 2, f"loss/{EVIL}": 2.0, f"warning/{EVIL}": EVIL, f"new_{EVIL}": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = run_page(found(tmp_path, (EVIL,)), tmp_path / "x.html", how_to_look=EVIL)
    page = page_of(path)  # which has one script, ours
    assert page.text.count(EVIL) >= 6


def test_a_log_that_is_damaged_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    odd = ['{"step": 3, "lo', "[]", "[" * 10**5, '{"step": "x"}', '{"step": -1}', "\xff", "7",
           '{"step": true, "lr": 1}', '{"miou": 1}']  # fmt: skip
    good = ['{"step": 1, "lr": 0.5, "a": NaN, "b": 1e999, "c": true, "d": null, "e": [1]}',
            '{"step": 1, "lr": 0.7}', '{"step": 2, "lr": 1' + "0" * 400 + "}",
            '{"step": 4, "skipped": 1, "losses": "loss nan"}']  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("\n".join([*good, *odd]))
    log = read_log(tmp_path)
    assert log.series == {"lr": [(1, 0.5)], "skipped": [(4, 1.0)]}
    assert log.damaged == len(odd)
    assert "loss nan" in log.warnings[0][2]
    page = page_of(run_page(found(tmp_path), tmp_path / "x.html", how_to_look=HOW))
    assert f"{len(odd)} damaged lines" in page.text
    assert read_log(tmp_path / "nowhere").last_step is None


def test_charts_by_hand() -> None:
    (chart,) = line_charts("t", {"a": [(0, 1.0), (10, 3.0)], "none": []}, marks=[5, 50])
    assert [line.points for line in chart.lines] == ["0,220 640,0"]
    assert chart.up[0] == (220.0, "1")
    assert chart.up[-1] == (0.0, "3")
    assert chart.marks == (320.0,)
    assert chart.words == "t: a from 1 to 3, lowest 1, highest 3"
    assert line_charts("t", {}) == []
    (flat,) = line_charts("t", {"a": [(5, 2.0)]})
    assert flat.lines[0].points == "320,110"
    assert len(line_charts("t", {str(n): [(0, 1.0)] for n in range(13)})) == 3
    long = [(step, float(step % 2)) for step in range(6000)]
    (chart,) = line_charts("t", {"a": long})
    assert len(chart.lines[0].points.split()) == 300
    assert chart.averaged == 20
    assert (chart.lines[0].lowest, chart.lines[0].highest) == (0.0, 1.0)  # not of the means
    assert sparkline([(0, 0.0), (1, 1.0)]) == "0.0,19.0 100.0,1.0"


def test_counts_are_those_of_the_evaluator() -> None:
    generator = np.random.default_rng(0)
    for space in (CITYSCAPES, replace(CITYSCAPES, name="of 254", **numbered(254))):
        labels = generator.integers(0, space.num_classes, (40, 60), dtype=np.uint8)
        predicted = generator.integers(0, space.num_classes, (40, 60), dtype=np.uint8)
        labels[:5] = 255
        image = Compared("a", np.zeros((4, 4, 3), np.uint8), labels, predicted,
                         generator.random((40, 60), dtype=np.float32), None)  # fmt: skip
        matrix = ConfusionMatrix(space.num_classes)
        matrix.update(torch.from_numpy(predicted)[None], torch.from_numpy(labels)[None])
        looked = looked_at([image], space, 1, "native", available=1)
        assert (looked.counts[0] == matrix.counts.numpy()).all()
        assert looked.confidence[:, 0].sum() == matrix.counts.sum()
        assert looked.confidence[:, 2].sum() == matrix.counts.trace()


def numbered(count: int) -> dict[str, Any]:
    names = tuple(map(str, range(count)))
    return {"classes": names, "report_names": names, "palette": ((1, 2, 3),) * count,
            "raw_to_train": {number: number for number in range(count)}}  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\3\4" + b"\0" * 100])
def test_damaged_counts_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "per_image.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"per_image\.npz is damaged"):
        read_per_image(tmp_path)


@pytest.mark.slow
def test_a_big_run_is_fast_and_small(tmp_path: Path) -> None:
    names = CITYSCAPES.report_names
    values = {"loss/a/main": 1.0, "lr": 0.1, "images_per_second": 9.0}
    shares = {f"{kind}/{name}": 0.05 for kind in ("source", "predicted") for name in names}
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 40_001, 20):
            file.write(json.dumps({"step": step} | values) + "\n")
            file.write(json.dumps({"step": step, "predicted_on": "target"} | shares) + "\n")
            if step % 200 == 1:
                scores = {f"iou/{name}": step / 40_000 for name in names} | {"miou": 0.5}
                file.write(json.dumps({"step": step, "protocol": "native"} | scores) + "\n")
    generator = np.random.default_rng(0)
    photo = Image.effect_noise((256, 128), 60).convert("RGB").resize((2048, 1024))
    noise = np.asarray(photo)
    coarse = generator.integers(0, 19, (16, 32), dtype=np.uint8)
    labels = coarse.repeat(64, axis=0).repeat(64, axis=1)
    confidence = generator.random((1024, 2048), dtype=np.float32)
    images = (
        Compared(str(n), np.roll(noise, n), labels, np.roll(labels, n), confidence, labels)
        for n in range(500)
    )
    began = time.perf_counter()
    looked = looked_at(images, CITYSCAPES, 500, "native", available=500)
    path = run_page(found(tmp_path), tmp_path / "x.html", looked=looked, against="y",
                    how_to_look=HOW)  # fmt: skip
    assert time.perf_counter() - began < 60
    assert path.stat().st_size < 20e6
    assert len(page_of(path).all("ul", id="list")[0].children) == 500
