"""uda data report and uda predict --report: pages of data sets and of predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from report_pages import Element, page_of, rows_of
from shells import NAMES, Trained
from uda.commands.main import main


@pytest.fixture
def city(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a toy city in a folder of its own, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(toy_root, tmp_path / "city"))


def report_of(city: Path, *arguments: str, status: int = 0) -> Element:
    common = ["--data-root", str(city), "--workers", "1", "--output", "page.html"]
    assert main(["data", "report", *arguments, *common]) == status
    return page_of(Path("page.html"))


def test_source_and_target_stand_side_by_side(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = report_of(city, "gta5", "cityscapes", "--images", "2")
    assert "page: page.html" in capsys.readouterr().out
    sets, classes = page.all("table")
    assert [row[:4] for row in rows_of(sets)[1:]] == [
        ["gta5 train", "6", "-", "6"],
        ["cityscapes train", "6", "-", "6"],
        ["cityscapes val", "3", "-", "3"],
    ]
    lightness = float(rows_of(sets)[1][5].split(" ± ")[0])
    assert 0 < lightness < 100
    assert [row[0] for row in rows_of(classes)[1:]] == list(NAMES)
    shares = np.array([[float(row[i]) for i in (1, 3, 5)] for row in rows_of(classes)[1:]])
    assert shares.sum(axis=0) == pytest.approx(100, abs=0.05)
    for number in (1, 2, 3):
        (shown,) = page.all("ul", id=f"list-{number}")
        assert len(shown.children) == 2
        assert len(shown.all("img")) == 4


def test_what_is_wrong_is_said_first(city: Path) -> None:
    labels = sorted((city / "GTA5/labels").glob("*.png"))
    labels[0].write_bytes(b"no picture")
    page = report_of(city, "gta5", status=1)
    (verdict,) = page.all("section")
    assert "1 problems were found" in verdict.text
    assert "cannot be decoded" in page.all("ul")[0].text
    assert len(page.all("ul", id="list-1")[0].children) == 5  # the others are shown
    assert labels[0].name in page.text


def test_labels_that_are_mapped_wrongly_are_seen_in_the_caption(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 20), (120, 120, 120)).save(tmp_path / "images/a.png")
    raw = np.zeros((20, 40), np.uint8)
    raw[:, :10] = 1
    Image.fromarray(raw).save(tmp_path / "labels/a.png")
    (tmp_path / "mine.toml").write_text(
        'images = "images/{name}.png"\nlabels = "labels/{name}.png"\n[splits]\nall = {}\n'
        '[[classes]]\nname = "<b>sky</b>"\ncolor = [0, 0, 255]\nvalues = [0]\n'
        '[[classes]]\nname = "road"\ncolor = [90, 90, 90]\nvalues = [1]\n'
    )
    output = tmp_path / "x.html"
    arguments = ["--output", str(output), "--cache", str(tmp_path / "c"), "--workers", "1"]
    main(["data", "report", str(tmp_path / "mine.toml"), *arguments])
    page = page_of(output)
    assert "a: <b>sky</b> 75 %, road 25 %" in page.text
    mean = rows_of(page.all("table")[0])[1][-1]
    assert mean == "rgb 120 120 120"


def test_a_missing_folder_is_refused_before_any_work(
    city: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["data", "report", "gta5", "--data-root", str(city), "--output", "no/x.html"])
    assert "--output no/x.html: give a file in a folder that exists" in capsys.readouterr().err


def test_predictions(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, gray in {"<b>.png": 10, "b.jpg": 200}.items():
        Image.new("RGB", (64, 32), (gray, gray, gray)).save(photos / name)
    (photos / "odd.png").write_bytes(b"no picture")
    common = ["predict", "--restore-from", str(trained.snapshot), "--images", "photos",
              "--output", "out", "--workers", "0", "--device", "cpu", "--report"]  # fmt: skip
    assert main(common) == 1
    assert "page: out.html" in capsys.readouterr().out
    page = page_of(tmp_path / "out.html")
    (shown,) = page.all("ul", id="list")
    assert {item.attributes["data-name"] for item in shown.children} == {"<b>.png", "b.jpg"}
    sure = [float(item.attributes["data-confidence"] or 0) for item in shown.children]
    assert sure == sorted(sure)
    assert len(shown.all("img")) == 6
    assert "odd.png" in page.all("section")[0].text
    assert sum(float(row[1]) for row in rows_of(page.all("table")[1])[1:]) == pytest.approx(100)
    main([*common, "--kinds", "ids"])  # replaces its folder, and the page of it
    assert len(page_of(tmp_path / "out.html").all("ul", id="list")[0].all("img")) == 4
    with pytest.raises(SystemExit):
        main([*common, "--kinds", "colors"])
    assert "--report shows the ids: add ids to --kinds" in capsys.readouterr().err
