"""scripts/get_ready.py: where each data set is to be had, and what of it is there."""

import shutil
from pathlib import Path

import pytest

from street_sets import ORIGINALS, name_of
from uda.commands.data.get_ready import main
from uda.data.registry import LAYOUTS
from uda.utilities.errors import InputError

TOY = "toy_city.json"  # data below a folder with this file have no known counts


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UDA_DATA", raising=False)


def test_without_a_name_all_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(LAYOUTS) + 1]] == list(LAYOUTS)
    assert lines[-1] == "there: give --data-root DIR or set UDA_DATA"
    ORIGINALS["kitti"].write_to(tmp_path)
    assert main(["--data-root", str(tmp_path)]) == 0
    there = {line.split()[0]: line.split()[2] for line in capsys.readouterr().out.splitlines()}
    assert [name for name, is_there in there.items() if is_there == "yes"] == ["kitti"]


@pytest.mark.parametrize("name", sorted({name_of(form) for form in ORIGINALS}))
def test_every_street_scene_has_a_page_and_says_what_to_unpack(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 0
    shown = capsys.readouterr().out
    for word in ("page: https://", "file: ", "unpack: ", f"layout: {LAYOUTS[name].folder}/"):
        assert word in shown
    for split in LAYOUTS[name].splits:
        assert f"split {split}: " in shown


@pytest.mark.parametrize("form", ORIGINALS)
def test_what_is_there_is_said(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original, arguments = ORIGINALS[form], [name_of(form), "--data-root", str(tmp_path)]
    assert main(arguments) == 1
    assert f"nothing of it is in {tmp_path / original.folder}" in capsys.readouterr().out
    original.write_to(tmp_path)
    assert main(arguments) == 1  # a part of it
    shown = capsys.readouterr().out
    for counts in original.counts:
        assert f"images; the data set has {' or '.join(map(str, counts))}" in shown
    (tmp_path / TOY).write_text("{}")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "complete as far as names tell" in shown
    count = len(original.stems)
    for split in original.splits:
        assert f"{split}: {count} images, {count} label files" in shown


def test_missing_labels_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ORIGINALS["idd"].write_to(tmp_path)
    (tmp_path / TOY).write_text("{}")
    arguments = ["idd", "--data-root", str(tmp_path)]
    shutil.rmtree(tmp_path / "IDD_Segmentation/gtFine/train")
    assert main(arguments) == 0  # a target needs none
    assert "note:" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "IDD_Segmentation/gtFine/val/0")
    assert main(arguments) == 1
    assert "1 images have no label file" in capsys.readouterr().out


def test_classes_without_pixels_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthia"]) == 0
    assert "classes without pixels: terrain, truck, train" in capsys.readouterr().out


def test_unknown_names_and_files_are_refused() -> None:
    with pytest.raises(InputError, match="there is no data set 'acdcc'; did you mean"):
        main(["acdcc"])
    with pytest.raises(InputError, match="says itself where its data are"):
        main(["my_data.toml"])
