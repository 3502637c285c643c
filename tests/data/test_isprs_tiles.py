"""Tiles of ISPRS Vaihingen and Potsdam: every pixel is in one, none is written twice."""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shells import Shell
from uda.data.datasets.isprs_areas import AREAS, IsprsName
from uda.data.preparation.isprs_tiles import (
    TileSettings,
    labels_of_colors,
    tile_origins,
    write_tiles,
)
from uda.utilities.errors import InputError

COLORS = np.array(  # by raw id
    [(0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0),
     (255, 0, 0)], np.uint8
)  # fmt: skip
SIZE = (11, 20)  # pixels (height, width) of an area
SMALL = TileSettings(dataset="vaihingen", clip=8, stride=4)

Bytes = npt.NDArray[np.uint8]


@pytest.fixture(scope="module", autouse=True)
def _hasty_disk() -> Iterator[None]:
    """Hundreds of tiles are not waited for one by one: nothing here is about power cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def write_area(raw: Path, dataset: IsprsName, area: str, size: tuple[int, int] = SIZE) -> Bytes:
    """An area of noise in the official naming, as its archives unpack; its raw ids (H, W)."""
    rng = np.random.default_rng(int(area.replace("_", "")))
    ids = rng.integers(0, 7, size, dtype=np.uint8)
    if dataset == "vaihingen":
        image = f"ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area{area}.tif"
        labels = (
            "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE/"
            f"top_mosaic_09cm_area{area}_noBoundary.tif"
        )
    else:
        image = f"3_Ortho_IRRG/top_potsdam_{area}_IRRG.tif"
        labels = f"5_Labels_all_noBoundary/top_potsdam_{area}_label_noBoundary.tif"
    for name, pixels in (
        (image, rng.integers(0, 256, (*size, 3), np.uint8)),
        (labels, COLORS[ids]),
    ):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(raw / name)
    return ids


def write_dataset(raw: Path, dataset: IsprsName = "vaihingen") -> dict[str, Bytes]:
    """Every area; raw ids by the area's name."""
    return {area.name: write_area(raw, dataset, area.name) for area in AREAS[dataset].areas}


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Bytes]]:
    """Raw files, tiles and labels of Vaihingen. Only read them."""
    folder = tmp_path_factory.mktemp("isprs")
    ids = write_dataset(folder / "raw")
    write_tiles(folder / "raw", folder / "Vaihingen", SMALL)
    return folder / "raw", folder / "Vaihingen", ids


def pixels(path: Path) -> Bytes:
    with Image.open(path) as image:
        return np.asarray(image)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_origins_by_hand() -> None:
    assert tile_origins(1100, 512, 256) == [0, 256, 512, 588]
    assert tile_origins(1024, 512, 256) == [0, 256, 512]  # ends at the border by itself
    assert tile_origins(1024, 512, 512) == [0, 512]
    assert tile_origins(512, 512, 256) == [0]
    assert tile_origins(511, 512, 256) == []


@pytest.mark.parametrize("stride", [1, 3, 4, 8])
def test_tiles_cover_every_pixel_and_overlap_as_said(stride: int) -> None:
    for size in range(8, 40):
        origins = tile_origins(size, 8, stride)
        seen = np.zeros(size, int)
        for origin in origins:
            seen[origin : origin + 8] += 1
        assert seen.min() >= 1
        assert origins[-1] == size - 8
        steps = np.diff(origins)
        assert (steps[:-1] == stride).all()  # neighbors share 8 - stride pixels, the last two more
        assert ((steps > 0) & (steps <= stride)).all()


def test_counts_names_and_split(tiled: tuple[Path, Path, dict[str, Bytes]]) -> None:
    """20x11 pixels, tiles of 8: rows 0 3 and, at stride 4, columns 0 4 8 12; at 8, 0 8 12."""
    _, output, _ = tiled
    for kind in ("img_dir", "ann_dir"):
        assert len(list((output / kind / "train").iterdir())) == 16 * 8
        assert len(list((output / kind / "val").iterdir())) == 17 * 6
    names = sorted(path.name for path in (output / "img_dir/train").glob("area1_*"))
    assert names == sorted(
        f"area1_{x}_{y}_{x + 8}_{y + 8}.png" for x in (0, 4, 8, 12) for y in (0, 3)
    )
    assert not (output / "img_dir/train/area2_0_0_8_8.png").exists()
    assert (output / "ann_dir/val/area2_0_0_8_8.png").exists()


def test_tiles_put_together_are_the_area(tiled: tuple[Path, Path, dict[str, Bytes]]) -> None:
    raw, output, ids = tiled
    image = pixels(raw / "ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area37.tif")
    seen = np.zeros(SIZE, int)
    for path in (output / "img_dir/train").glob("area37_*"):
        left, top, right, bottom = map(int, path.stem.split("_")[1:])
        box = np.s_[top:bottom, left:right]
        assert (pixels(path) == image[box]).all()
        assert (pixels(output / "ann_dir/train" / path.name) == ids["37"][box]).all()
        seen[box] += 1
    assert seen.min() == 1
    # Columns 4 to 15 are in two tiles, rows 3 to 7 in two.
    assert seen[0].tolist() == [1] * 4 + [2] * 12 + [1] * 4
    assert seen[:, 0].tolist() == [1] * 3 + [2] * 5 + [1] * 3


def test_val_tiles_repeat_only_what_the_last_row_and_column_do(
    tiled: tuple[Path, Path, dict[str, Bytes]], tmp_path: Path
) -> None:
    raw, output, _ = tiled
    names = sorted(path.name for path in (output / "ann_dir/val").glob("area38_*"))
    assert names == sorted(
        f"area38_{x}_{y}_{x + 8}_{y + 8}.png" for x in (0, 8, 12) for y in (0, 3)
    )
    settings = replace(SMALL, val_stride=4)
    assert write_tiles(raw, tmp_path / "tiles", settings) == (16 * 8, 17 * 8)


def test_repeated_every_byte_is_the_same(
    tiled: tuple[Path, Path, dict[str, Bytes]], tmp_path: Path
) -> None:
    raw, output, _ = tiled
    write_tiles(raw, tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(output)


def test_an_interrupted_call_is_completed(
    tiled: tuple[Path, Path, dict[str, Bytes]], tmp_path: Path
) -> None:
    raw, output, _ = tiled

    def stop(areas: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tiles(raw, tmp_path / "tiles", SMALL, progress=stop)
    (tmp_path / "tiles/img_dir/train/area1_0_0_8_8.png.partial").write_bytes(b"half")
    (tmp_path / "tiles/img_dir/train/area1_4_0_12_8.png").unlink()
    write_tiles(raw, tmp_path / "tiles", SMALL)
    assert contents(tmp_path / "tiles") == contents(output)


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"stride": 8}, "stride 4"), ({"clip": 9}, "clip 8"), ({"pixel_cm": 10.0}, "pixel_cm 9.0")],
)
def test_two_settings_never_share_a_folder(
    tiled: tuple[Path, Path, dict[str, Bytes]], changed: dict[str, float], said: str
) -> None:
    raw, output, _ = tiled
    before = contents(output)
    settings = replace(SMALL, **changed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"has tiles of other settings \\({said}\\)"):
        write_tiles(raw, output, settings)
    assert contents(output) == before


def test_a_folder_of_somebody_else_is_refused(
    tiled: tuple[Path, Path, dict[str, Bytes]], tmp_path: Path
) -> None:
    (tmp_path / "img_dir").mkdir()
    with pytest.raises(InputError, match=r"no tiles\.json"):
        write_tiles(tiled[0], tmp_path, SMALL)
    (tmp_path / "tiles.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read"):
        write_tiles(tiled[0], tmp_path, SMALL)


def test_every_color_by_hand() -> None:
    assert labels_of_colors(COLORS[None], "x").tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_another_color_is_refused_with_its_count_and_place() -> None:
    colors = COLORS[np.ones((600, 4), int)]
    colors[520, 3] = colors[590, 1] = (252, 255, 0)
    colors[0, 0] = (255, 0, 255)  # bright enough, but of no class
    said = (
        r"area1: 3 pixels have no color of the legend; \(252, 255, 0\) has 2 of them, the first at "
        r"column 3, row 520"
    )
    with pytest.raises(InputError, match=said):
        labels_of_colors(colors, "area1")
    with pytest.raises(InputError, match=r"1 pixels .* \(255, 0, 255\)"):
        labels_of_colors(colors, "area1", tolerance=3)
    colors[0, 0] = 3
    ids = labels_of_colors(colors, "area1", tolerance=3)
    assert (ids[520, 3], ids[0, 0], ids[1, 1]) == (5, 0, 1)


def test_potsdam_at_the_resolution_of_vaihingen(tmp_path: Path) -> None:
    """18 pixels of 5 cm are 10 of 9 cm."""
    for area in AREAS["potsdam"].areas:
        write_area(tmp_path / "raw", "potsdam", area.name, (18, 18))
    settings = TileSettings(dataset="potsdam", clip=6, stride=4)
    counts = write_tiles(tmp_path / "raw", tmp_path / "tiles", settings)
    assert counts == (24 * 4, 14 * 4)
    assert pixels(tmp_path / "tiles/img_dir/train/2_10_4_4_10_10.png").shape == (6, 6, 3)
    assert pixels(tmp_path / "tiles/ann_dir/val/7_13_0_4_6_10.png").max() <= 6
    as_flown = TileSettings(dataset="potsdam", clip=18, pixel_cm=5.0, stride=18)
    write_tiles(tmp_path / "raw", tmp_path / "whole", as_flown)
    whole = pixels(tmp_path / "whole/img_dir/val/7_13_0_0_18_18.png")
    assert (whole == pixels(tmp_path / "raw/3_Ortho_IRRG/top_potsdam_7_13_IRRG.tif")).all()


def test_the_official_splits() -> None:
    for dataset, train, val in (("vaihingen", 16, 17), ("potsdam", 24, 14)):
        areas = AREAS[dataset].areas  # type: ignore[index]
        assert [area.split for area in areas] == ["train"] * train + ["val"] * val
        assert len({area.name for area in areas}) == train + val
    assert "9" not in {area.name for area in AREAS["vaihingen"].areas}


def test_what_is_missing_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with pytest.raises(InputError, match="is not a folder"):
        write_tiles(raw, tmp_path / "tiles", SMALL)
    write_dataset(raw)
    top = raw / "ISPRS_semantic_labeling_Vaihingen/top"
    # The full ground truth bears the names of the images.
    full = raw / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
    full.mkdir()
    (full / "top_mosaic_09cm_area1.tif").write_bytes(
        (top / "top_mosaic_09cm_area1.tif").read_bytes()
    )
    write_area(raw, "vaihingen", "9")  # of no split
    assert write_tiles(raw, tmp_path / "tiles", SMALL) == (128, 102)

    with pytest.raises(InputError, match=r"area1\.tif has 20x11 pixels at 9 cm, less than a tile"):
        write_tiles(raw, tmp_path / "other", TileSettings(dataset="vaihingen", clip=12, stride=4))
    with pytest.raises(InputError, match=r"would have 18000x9900 pixels at 0\.01 cm"):
        write_tiles(raw, tmp_path / "fine", replace(SMALL, pixel_cm=0.01))
    write_area(raw, "vaihingen", "3", (12, 20))
    write_area(tmp_path / "taller", "vaihingen", "3", (13, 20))
    labels = next((tmp_path / "taller").rglob("*noBoundary.tif"))
    labels.replace(next(raw.rglob("*area3_noBoundary.tif")))
    with pytest.raises(InputError, match=r"area3_noBoundary\.tif is of another size than"):
        write_tiles(raw, tmp_path / "sizes", SMALL)
    (top / "top_mosaic_09cm_area5.tif").rename(tmp_path / "away.tif")
    with pytest.raises(InputError, match=r"has no top/top_mosaic_09cm_area5\.tif; expected"):
        write_tiles(raw, tmp_path / "missing", SMALL)
    (raw / "again/top").mkdir(parents=True)
    (tmp_path / "away.tif").rename(raw / "again/top/top_mosaic_09cm_area1.tif")
    with pytest.raises(InputError, match=r"area1\.tif is there 2 times"):
        write_tiles(raw, tmp_path / "twice", SMALL)


def test_only_rgb_tiffs_are_read(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    image = tmp_path / "ISPRS_semantic_labeling_Vaihingen/top/top_mosaic_09cm_area1.tif"
    Image.new("L", (20, 11)).save(image)
    with pytest.raises(InputError, match=r"area1\.tif has 1 channels of 8 bits, mode L; allowed"):
        write_tiles(tmp_path, tmp_path / "tiles", SMALL)
    for colors, said in (
        (np.zeros((*SIZE, 3), np.uint16), "3 channels of 16 bits"),  # both are RGB to Pillow
        (np.zeros((*SIZE, 4), np.uint8), "4 channels of 8 bits"),
    ):
        image.write_bytes(raw_tiff(colors))
        with pytest.raises(InputError, match=said):
            write_tiles(tmp_path, tmp_path / "tiles", SMALL)
    image.write_bytes(raw_tiff(np.zeros((*SIZE, 3), np.uint8)))
    write_tiles(tmp_path, tmp_path / "tiles", SMALL)
    Image.new("RGB", (20, 11)).save(image, compression="tiff_lzw", big_tiff=True)
    write_tiles(tmp_path, tmp_path / "other", SMALL)
    assert contents(tmp_path / "other") == contents(tmp_path / "tiles")
    Image.new("RGB", (20, 11)).save(image, format="png")
    with pytest.raises(InputError, match=r"area1\.tif cannot be decoded"):
        write_tiles(tmp_path, tmp_path / "third", SMALL)


def raw_tiff(pixels: npt.NDArray[np.unsignedinteger]) -> bytes:
    """A TIFF of (H, W, C) pixels, as few programs write them: one strip, and no fourth meaning."""
    height, width, channels = pixels.shape
    bits = struct.pack(f"<{channels}H", *[8 * pixels.itemsize] * channels)
    data = 8 + len(bits)
    tags = [(256, width), (257, height), (259, 1), (262, 2), (273, data), (277, channels),
            (278, height), (279, pixels.nbytes)]  # fmt: skip
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(2, struct.pack("<HHII", 258, 3, channels, 8))
    folder = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    start = struct.pack("<2sHI", b"II", 42, data + pixels.nbytes)
    return start + bits + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + folder


def test_a_folder_is_gone_on_with_under_a_larger_tolerance(tmp_path: Path) -> None:
    """What the message about a strange color says to do helps; the tiles before it stay."""
    write_dataset(tmp_path / "raw")
    labels = next(tmp_path.rglob("*area3_noBoundary.tif"))
    colors = pixels(labels).copy()
    colors[colors == 255] = 253
    Image.fromarray(colors).save(labels)
    output = tmp_path / "tiles"
    with pytest.raises(InputError, match="--color-tolerance N"):
        write_tiles(tmp_path / "raw", output, SMALL)
    written = contents(output)
    tolerant = replace(SMALL, color_tolerance=2)
    assert write_tiles(tmp_path / "raw", output, tolerant) == (128, 102)
    first = {name: data for name, data in written.items() if name != "tiles.json"}
    assert first.items() <= contents(output).items()
    assert first
    with pytest.raises(InputError, match=r"other settings \(color_tolerance 2\)"):
        write_tiles(tmp_path / "raw", output, SMALL)


def test_settings_that_make_no_sense_are_refused(shell: Shell) -> None:
    prepare = ("scripts/prepare_vaihingen.py", "raw", "--output", "tiles")
    assert "would leave pixels out" in shell.refused(*prepare, "--clip", "8", "--stride", "9")
    assert "no blue channel" in shell.refused(*prepare, "--channels", "RGB")
    assert "--color-tolerance is 64" in shell.refused(*prepare, "--color-tolerance", "64")
    assert "raw is not a folder" in shell.refused(*prepare)


def test_the_command_says_what_it_wrote(shell: Shell) -> None:
    write_dataset(shell.cwd / "raw")
    output = shell.run(
        "scripts/prepare_vaihingen.py", "raw", "--output", "Vaihingen",
        "--clip", "8", "--stride", "4",
    )  # fmt: skip
    assert output == "Vaihingen: 128 train and 102 val tiles of 8x8, stride 4, IRRG, 9 cm\n"
    assert json.loads((shell.cwd / "Vaihingen/tiles.json").read_text())["stride"] == 4
