"""The report of an adaptation: what it says, and that nothing from outside is markup."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapted_folders import CLASSES, EVIL, IMAGES, values, written
from report_pages import page_of, rows_of
from uda.reports import pictures
from uda.reports.adaptation import adapt_report
from uda.utilities.errors import InputError


def test_the_verdict_comes_first_and_everything_is_said(tmp_path: Path) -> None:
    path = adapt_report(written(tmp_path / "out"))
    assert path == tmp_path / "out/report.html"
    page = page_of(path)
    verdict, warnings, *_ = page.all("section")
    assert "the network was adapted" in verdict.text
    assert "agreement rose on 38 of 40 images" in verdict.text
    assert "stage1.pth" in verdict.text
    assert "nearly vanished" in warnings.text
    first, second, shares, scores = page.all("table", **{"class": "sortable"})
    assert rows_of(first)[1:] == [
        ["agreement between views", "higher", "0.6100", "0.7000", "+0.0900", "better"],
        ["mean entropy", "lower", "0.4000", "0.5000", "+0.1000", "worse"],
        ["unknown", "-", "-", "-", "-", "-"],
    ]
    assert rows_of(second)[1][2:] == ["0.6100", "0.6100", "+0.0000", "no change"]
    assert [row[:4] for row in rows_of(shares)[1:]] == [
        ["road", "50.00", "62.50", "+12.50"],
        [EVIL, "25.00", "0.00", "-25.00"],
        ["sky", "25.00", "37.50", "+12.50"],
    ]
    assert rows_of(scores)[1:3] == [["mIoU", "41.25", "43.50", "+2.25"],
                                    ["road", "80.00", "82.00", "+2.00"]]  # fmt: skip
    assert "not used to choose" in page.text
    assert values()["settings"]["command"] in [code.text for code in page.all("code")]
    assert values()["undo"] in page.text
    assert "1280x720 (400), 640x360 (3)" in page.text


def test_pictures_are_inside_most_changed_first(tmp_path: Path) -> None:
    page = page_of(adapt_report(written(tmp_path)))
    (shown,) = page.all("ul", id="list")
    assert [item.attributes["data-name"] for item in shown.children] == list(IMAGES[::-1])
    assert len(shown.all("img")) == 9
    (slider, *_) = page.all("input", type="range")
    assert slider.attributes["aria-label"] == f"{IMAGES[2]}: percent of the width that shows old"


def test_the_whole_network_is_named_where_it_is(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "adapted.pth").touch()
    assert "adapted.pth" in page_of(adapt_report(folder)).all("section")[0].text


def test_an_outcome_of_nothing_is_said_too(tmp_path: Path) -> None:
    changes: dict[str, object] = {"outcome": "kept", "stages": [], "scores": None, "pictures": []}
    page = page_of(adapt_report(written(tmp_path, **changes, warnings=[])))
    (verdict,) = page.all("section")
    assert "left as it was" in verdict.text
    assert "No stage was run" in page.text
    assert "There are no pictures" in page.text


def test_a_picture_that_is_gone_is_left_out_and_named(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "comparison/2.jpg").unlink()
    (folder / "comparison/1.jpg").write_bytes(b"no picture")
    page = page_of(adapt_report(folder))
    assert len(page.all("ul", id="list")[0].children) == 1
    assert "2.jpg does not exist" in page.text
    assert "1.jpg cannot be decoded" in page.text


def test_many_large_pictures_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    noise = Image.effect_noise((1500, 1000), 90)
    for path in (folder / "comparison").iterdir():
        noise.save(path, quality=95)
    monkeypatch.setattr(pictures.PictureBudget.__init__, "__defaults__", (60_000,))
    assert adapt_report(folder).stat().st_size < 90_000
    page = page_of(folder / "report.html")
    assert "more changed less" in page.text or len(page.all("ul", id="list")[0].children) == 3


def test_the_page_is_replaced_whole_and_is_the_same_again(tmp_path: Path) -> None:
    folder = written(tmp_path)
    first = adapt_report(folder).read_bytes()
    assert adapt_report(folder).read_bytes() == first
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (["format"], "uda adapt 2", "has the format 'uda adapt 2'; allowed: 'uda adapt 1'"),
        (["network", "palette"], [[1, 2, 3]], "network.palette has 1 entries for 3 classes"),
        (["network", "palette", 0], [1, 2, 256], "not three numbers from 0 to 255"),
        (["shares", "new", 1], 1.5, "a share is not from 0 to 1"),
        (["stages", 0, "verdict"], "good", "a verdict is 'good'; allowed: better, unclear, worse"),
        (["outcome"], "won", "outcome is 'won'; allowed: adapted, kept"),
        (["pictures", 0, "photo"], "../up.jpg", "'../up.jpg' is not below its folder"),
        (["pictures", 0, "photo"], "/etc/passwd", "'/etc/passwd' is not below its folder"),
        (["images", "count"], "many", "images.count is 'many'; allowed: a whole number"),
        (["stages", 1, "seconds"], float("inf"), "Infinity is no number of JSON"),
        (["undo"], None, "undo is None; allowed: text"),
    ],
)
def test_what_does_not_fit_is_refused(
    place: list[Any], value: object, complaint: str, tmp_path: Path
) -> None:
    found: Any = values()
    at = found
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    folder = written(tmp_path / "out", **found)
    with pytest.raises(InputError) as error:
        adapt_report(folder)
    assert complaint in str(error.value)
    assert not (folder / "report.html").exists()


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "out")
    (tmp_path / "secret.jpg").write_bytes((folder / "comparison/0.jpg").read_bytes())
    (folder / "comparison/0.jpg").unlink()
    (folder / "comparison/0.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="not below its folder"):
        adapt_report(folder)


@pytest.mark.parametrize("content", [b"", b"[" * 10**5, b"{}", b"\xff", b"1" * 10**5, b"null"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "adapt.json").write_bytes(content)
    with pytest.raises(InputError, match=r"adapt\.json"):
        adapt_report(tmp_path)
    with pytest.raises(InputError, match=r"has no adapt\.json"):
        adapt_report(tmp_path / "nowhere")


def test_texts_of_any_length_and_content_are_shown_bounded(tmp_path: Path) -> None:
    odd = ["\ud800\x00\x1b" + "&" * 100_000, *CLASSES[1:]]
    folder = written(tmp_path, network=values()["network"] | {"classes": odd})
    content = adapt_report(folder).read_text("utf-8")
    assert len(content) < 150_000
    assert json.loads((folder / "adapt.json").read_text())["network"]["classes"] == odd
