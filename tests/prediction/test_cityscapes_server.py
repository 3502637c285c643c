"""Zips for the Cityscapes test server: predictions arrive, what it would refuse is refused."""

import fnmatch
import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import SIZE, Bytes, noise
from uda.labels.spaces import IGNORE_INDEX
from uda.prediction import cityscapes_server
from uda.prediction.cityscapes_check import SERVER_SIZE, check_server_zip
from uda.prediction.cityscapes_server import ServerZip
from uda.utilities.errors import InputError

STEMS = ("berlin_000000_000019", "berlin_000001_000019", "bonn_000000_000019")


def train_ids(seed: int) -> Bytes:
    """(H, W) train ids, all of them and 255."""
    ids = np.array([*range(19), IGNORE_INDEX], np.uint8)
    return np.random.default_rng(seed).choice(ids, SIZE)


def writer(path: Path, stems: tuple[str, ...] = STEMS, size: tuple[int, int] = SIZE) -> ServerZip:
    return ServerZip(path, stems=stems, size=size)


def write_zip(path: Path, stems: tuple[str, ...] = STEMS) -> str:
    with writer(path, stems) as export:
        for seed, stem in enumerate(stems):
            export.write(stem, train_ids(seed))
        return export.finish()


def label_ids(value: int = 33, size: tuple[int, int] = SIZE) -> Bytes:
    """(H, W), all 7 but for `value` in one corner."""
    labels = np.full(size, 7, np.uint8)
    labels[0, 0] = value
    return labels


def png(labels: Bytes | Image.Image) -> bytes:
    buffer = io.BytesIO()
    image = labels if isinstance(labels, Image.Image) else Image.fromarray(labels)
    image.save(buffer, "PNG")
    return buffer.getvalue()


GOOD = png(label_ids())
FILES = {f"{stem}.png": GOOD for stem in STEMS}


def pack(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def refusal(path: Path, stems: tuple[str, ...] = STEMS) -> str:
    with pytest.raises(InputError) as caught:
        check_server_zip(path, stems, size=SIZE)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert message.endswith("; write it again with eval_single.py --export cityscapes")
    return message


def refusal_of(folder: Path, first: bytes) -> str:
    """The refusal of a zip in which the file of the first image alone is odd."""
    return refusal(pack(folder / "odd.zip", FILES | {f"{STEMS[0]}.png": first}))


def test_predictions_arrive_as_label_ids(tmp_path: Path) -> None:
    predicted = np.array([[0, 1, 18, 255], [10, 13, 16, 5]], np.uint8)
    path = tmp_path / "test.zip"
    with writer(path, STEMS[:1], (2, 4)) as export:
        export.write(STEMS[0], predicted)
        export.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["test.zip"]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["berlin_000000_000019_pred_labelIds.png"]
        with Image.open(archive.open(archive.namelist()[0])) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            assert np.asarray(image).tolist() == [[7, 8, 33, 0], [23, 26, 31, 17]]


def test_the_official_search_finds_one_file_per_image(tmp_path: Path) -> None:
    """As `getPrediction` of cityscapesScripts looks for it."""
    write_zip(tmp_path / "test.zip")
    with zipfile.ZipFile(tmp_path / "test.zip") as archive:
        for stem in STEMS:
            assert len(fnmatch.filter(archive.namelist(), f"{stem}*.png")) == 1
        assert len(archive.namelist()) == len(STEMS)


def test_the_same_predictions_make_the_same_bytes(tmp_path: Path) -> None:
    write_zip(tmp_path / "first.zip")
    write_zip(tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)  # not the clock's, so of any two days
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.external_attr >> 16 == 0o100644  # unpacked, the files can be read


def test_the_report_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "test.zip"
    assert write_zip(path) == (
        f"3 label-id PNGs, checked against the server's rules: {path}; "
        "the server expects 1525 of 2048x1024, these are 3 of 16x8"
    )


def test_a_complete_export_is_reported_without_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cityscapes_server, "TEST_IMAGES", 1)
    path = tmp_path / "test.zip"
    with ServerZip(path, stems=STEMS[:1], size=SERVER_SIZE) as export:
        export.write(STEMS[0], np.full(SERVER_SIZE, 13, np.uint8))
        line = export.finish()
    assert line == f"1 label-id PNGs, checked against the server's rules: {path}"
    check_server_zip(path, STEMS[:1])


def test_a_large_export_is_mentioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cityscapes_server, "_SAID_LIMIT", 100)
    assert write_zip(tmp_path / "test.zip").endswith(" MB, and the server is said to take 0")


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def stop(error: BaseException) -> None:
        with writer(tmp_path / "test.zip") as export:
            export.write(STEMS[0], train_ids(0))
            raise error

    with pytest.raises(InputError, match="an image cannot be read"):
        stop(InputError("an image cannot be read"))
    with pytest.raises(KeyboardInterrupt):
        stop(KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_it_is_not_finished(tmp_path: Path) -> None:
    with writer(tmp_path / "test.zip") as export:
        export.write(STEMS[0], train_ids(0))
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_export_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "test.zip"
    with writer(path) as export:
        export.write(STEMS[0], train_ids(0))
        with pytest.raises(InputError) as caught:
            export.finish()
    assert str(caught.value) == (
        f"{path}: there is no berlin_000001_000019*.png; the server wants one for each image (the "
        "first of 2 problems); write it again with eval_single.py --export cityscapes"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".test.zip.uda-partial").mkdir()
    (tmp_path / ".test.zip.uda-partial" / "test.zip").write_bytes(b"half a zip")
    write_zip(tmp_path / "test.zip")
    assert [file.name for file in tmp_path.iterdir()] == ["test.zip"]
    check_server_zip(tmp_path / "test.zip", STEMS, size=SIZE)


def test_an_existing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.zip"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"test\.zip exists already: remove it or choose another"):
        writer(path)
    assert path.read_text() == "mine"


def test_a_place_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; create it or choose"):
        writer(tmp_path / "nowhere" / "test.zip")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"there is no folder .*file; create it or choose"):
        writer(tmp_path / "file" / "test.zip")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".test.zip.uda-partial").touch()  # stands for a folder without permission
    with (
        pytest.raises(InputError, match=r"test\.zip\.uda-partial/\.lock cannot be written"),
        writer(tmp_path / "test.zip"),
    ):
        pass


@pytest.mark.parametrize("stem", ["00001", "berlin_1_19", "berlin_000000_000019_more", "a/b"])
def test_names_that_the_server_cannot_tell_apart_are_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(InputError, match=f"^{stem} is not an image name of Cityscapes, such as"):
        writer(tmp_path / "test.zip", (STEMS[0], stem))


def test_a_name_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 images are called berlin_000000_000019; export one"):
        writer(tmp_path / "test.zip", (*STEMS, STEMS[0]))


@pytest.mark.parametrize("stem", [STEMS[0], "ulm_000000_000019"])
def test_an_image_is_written_once_and_only_if_awaited(tmp_path: Path, stem: str) -> None:
    with writer(tmp_path / "test.zip") as export:
        export.write(STEMS[0], train_ids(0))
        with pytest.raises(InputError, match=f"{stem} was written already, or is not one of the 3"):
            export.write(stem, train_ids(0))


def test_a_prediction_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        writer(tmp_path / "test.zip") as export,
        pytest.raises(InputError, match=f"{STEMS[0]} has the size 8x16, not 16x8"),
    ):
        export.write(STEMS[0], train_ids(0).T)


@pytest.mark.parametrize("value", [19, 33, 254])
def test_a_prediction_that_holds_no_train_ids_is_refused(tmp_path: Path, value: int) -> None:
    labels = train_ids(0)
    labels[1, 1] = value
    with (
        writer(tmp_path / "test.zip") as export,
        pytest.raises(
            InputError, match=f"{value}, which is not a train id; allowed: 0..18 and 255"
        ),
    ):
        export.write(STEMS[0], labels)


def test_a_network_that_sees_road_alone_can_be_exported(tmp_path: Path) -> None:
    """Its label ids are small, as train ids are."""
    with writer(tmp_path / "test.zip", STEMS[:1]) as export:
        export.write(STEMS[0], np.zeros(SIZE, np.uint8))
        export.finish()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_of_other_hands_are_accepted(tmp_path: Path, method: int) -> None:
    files = {
        "results/": b"",
        f"results/berlin/{STEMS[0]}.png": GOOD,
        f"results/berlin/{STEMS[1]}_leftImg8bit.png": png(label_ids(0)),
        f"{STEMS[2]}_gtFine_labelIds.png": png(label_ids(30)),
    }
    check_server_zip(pack(tmp_path / "test.zip", files, method), STEMS, size=SIZE)


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.zip"
    assert "the zip cannot be read ([Errno 2] No such file" in refusal(path)
    path.write_bytes(b"nothing")
    assert "the zip cannot be read (File is not a zip file)" in refusal(path)
    path.write_bytes(pack(tmp_path / "whole.zip", FILES).read_bytes()[:-30])
    assert "the zip cannot be read (File is not a zip file)" in refusal(path)
    (tmp_path / "folder").mkdir()
    assert "the zip cannot be read ([Errno 21] Is a directory" in refusal(tmp_path / "folder")


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if STEMS[2] not in name}
    message = refusal(pack(tmp_path / "test.zip", files))
    assert "there is no bonn_000000_000019*.png; the server wants one for each image;" in message


@pytest.mark.parametrize("other", ["more/{}.png", "{}_again.png", "{}9.png"])
def test_two_files_of_an_image_are_refused(tmp_path: Path, other: str) -> None:
    name = other.format(STEMS[0])
    message = refusal(pack(tmp_path / "test.zip", FILES | {name: GOOD}))
    assert f"2 files are {STEMS[0]}*.png ('{STEMS[0]}.png', '{name}'); allowed: one;" in message


@pytest.mark.parametrize(
    "name",
    [
        "readme.txt",
        "ulm_000000_000019.png",
        f"__MACOSX/._{STEMS[0]}.png",
        f"{STEMS[0]}_color.jpg",
        f"{STEMS[0]}_color.PNG",
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    message = refusal(pack(tmp_path / "test.zip", FILES | {name: GOOD}))
    assert (
        f"'{name}' does not belong to any of the 3 images; allowed: one <image name>*.png"
        in message
    )


@pytest.mark.parametrize("folder", ["/", "../", "results/../../", "..\\", "C:"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}{name}": data for name, data in FILES.items()}
    message = refusal(pack(tmp_path / "test.zip", files))
    assert "could leave the folder it is unpacked into; allowed: relative names" in message


def test_pictures_that_are_no_8_bit_gray_png_are_refused(tmp_path: Path) -> None:
    gray = Image.fromarray(label_ids())
    jpeg = io.BytesIO()
    gray.save(jpeg, "JPEG")
    wrong = {
        "is not a PNG; allowed: PNG": jpeg.getvalue(),
        "a PNG of 8-bit RGB; allowed: 8-bit gray": png(noise(0)),
        "a PNG of 8-bit palette; allowed: 8-bit gray": png(gray.convert("P")),
        "a PNG of 8-bit gray with transparency; allowed": png(gray.convert("LA")),
        "a PNG of 1-bit gray; allowed: 8-bit gray": png(gray.convert("1")),
        "a PNG of 16-bit gray; allowed: 8-bit gray": png(gray.convert("I;16")),
    }
    for message, data in wrong.items():
        assert f"'{STEMS[0]}.png'" in refusal_of(tmp_path, data)
        assert message in refusal_of(tmp_path, data)
    assert "is not a PNG; allowed: PNG" in refusal_of(tmp_path, b"")


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    assert f"'{STEMS[0]}.png' cannot be read (" in refusal_of(tmp_path, GOOD[:-30])
    path = pack(tmp_path / "test.zip", FILES, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(GOOD) + 50] ^= 1
    path.write_bytes(content)
    assert f"'{STEMS[0]}.png' cannot be read (Bad CRC-32" in refusal(path)


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    small = png(label_ids(size=(4, 8)))
    assert "8x4 pixels; allowed: 16x8, the size" in refusal_of(tmp_path, small)
    with pytest.raises(InputError, match="16x8 pixels; allowed: 2048x1024"):
        check_server_zip(pack(tmp_path / "test.zip", FILES), STEMS)


@pytest.mark.parametrize("value", [34, 100, 255])
def test_values_that_are_no_label_ids_are_refused(tmp_path: Path, value: int) -> None:
    message = refusal_of(tmp_path, png(label_ids(value)))
    assert f"'{STEMS[0]}.png': {value} is not a label id that the server knows" in message
    assert "allowed: 0..33, 0 for no class;" in message


def test_train_ids_are_refused(tmp_path: Path) -> None:
    files = {f"{stem}.png": png(np.arange(16, dtype=np.uint8)[None].repeat(8, 0)) for stem in STEMS}
    message = refusal(pack(tmp_path / "test.zip", files))
    assert "no value in any file is above 18, and 1 is never scored: these look like tr" in message
    # A single larger value says that they are label ids, if those of an odd network.
    mixed = files | {f"{STEMS[2]}.png": GOOD}
    check_server_zip(pack(tmp_path / "mixed.zip", mixed), STEMS, size=SIZE)


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    zeros = GOOD + bytes(10**7)
    assert len(pack(tmp_path / "bomb.zip", {"bomb.png": zeros}).read_bytes()) < 10**5
    assert f"{len(zeros)} bytes; a PNG of 16x8 takes at most" in refusal_of(tmp_path, zeros)
    header = GOOD[:16] + struct.pack(">II", 60000, 60000) + GOOD[24:]
    assert "60000x60000 pixels; allowed: 16x8" in refusal_of(tmp_path, header)


def test_what_a_plain_unzip_cannot_read_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "test.zip", FILES, zipfile.ZIP_BZIP2)
    assert "compression method 12; allowed: stored, deflated (the first of 3" in refusal(path)
    path = pack(tmp_path / "locked.zip", FILES, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the first file's flag: encrypted
    path.write_bytes(content)
    assert "is encrypted, password required" in refusal(path)


def test_the_first_problem_is_told_and_the_others_are_counted(tmp_path: Path) -> None:
    files = {"readme.txt": b"", f"{STEMS[0]}.png": b"", f"{STEMS[1]}.png": png(label_ids(255))}
    message = refusal(pack(tmp_path / "test.zip", files))
    assert "'readme.txt' does not belong to any" in message
    assert "(the first of 4 problems)" in message
