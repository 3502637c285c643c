"""The toy city: the same bytes for the same arguments, and files written all or nothing."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from uda.data.toy_city.city import (
    color_statistics,
    contact_sheet,
    match_colors,
    toy_image,
    write_toy_city,
)
from uda.data.toy_city.scene import Domain
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError

REPOSITORY = Path(__file__).parents[2]
DOMAINS: tuple[Domain, ...] = ("source", "target")

Bytes = npt.NDArray[np.uint8]


def write_small(root: Path, *, seed: int = 0) -> None:
    write_toy_city(
        root, source_images=3, target_images=5, validation_images=4, size=(64, 96), seed=seed
    )


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "toy_city"
    write_small(root)
    return root


def read(path: Path, mode: str) -> Bytes:
    with Image.open(path) as image:
        assert image.mode == mode
        return np.array(image)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_image_depends_on_seed_domain_and_index_alone(domain: Domain) -> None:
    image, train_ids = toy_image(domain, 3, seed=0)
    toy_image(domain, 4, seed=0)  # no state may be left behind
    again = toy_image(domain, 3, seed=0)
    assert np.array_equal(image, again.image)
    assert np.array_equal(train_ids, again.train_ids)
    others = (
        toy_image(domain, 4, seed=0),
        toy_image(domain, 3, seed=1),
        toy_image("source" if domain == "target" else "target", 3, seed=0),
    )
    for other in others:
        assert not np.array_equal(train_ids, other.train_ids)
        assert not np.array_equal(image, other.image)


@pytest.mark.slow
def test_another_process_draws_the_same() -> None:
    program = (
        "import hashlib; from uda.data.toy_city.city import toy_image\n"
        "domains = 'source', 'target'\n"
        "parts = [part.tobytes() for domain in domains for part in toy_image(domain, 7, seed=5)]\n"
        "print(hashlib.sha256(b''.join(parts)).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    parts = [part.tobytes() for domain in DOMAINS for part in toy_image(domain, 7, seed=5)]
    assert other.stdout.strip() == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("size", [(64, 64), (90, 200), (256, 512)])
@pytest.mark.parametrize("domain", DOMAINS)
def test_shapes_and_types_at_any_size(domain: Domain, size: tuple[int, int]) -> None:
    image, train_ids = toy_image(domain, 0, seed=0, size=size)
    assert image.shape == (*size, 3)
    assert train_ids.shape == size
    assert image.dtype == train_ids.dtype == np.uint8


def test_every_size_shows_the_same_street() -> None:
    for domain in DOMAINS:
        small = toy_image(domain, 1, seed=0, size=(128, 256)).train_ids
        large = toy_image(domain, 1, seed=0, size=(256, 512)).train_ids
        assert (small == large[::2, ::2]).mean() > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0, "size": (63, 256)}, "256x63"),
        ({"seed": 0, "gap": 1.5}, "gap 1.5"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        toy_image("source", 0, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="-1"):
        toy_image("source", -1, seed=0)


def test_match_colors_takes_over_the_colors() -> None:
    source = toy_image("source", 0, seed=0).image
    wanted = color_statistics(toy_image("target", 0, seed=0).image)
    before, after = (color_statistics(i) for i in (source, match_colors(source, wanted)))
    assert np.abs(after.mean - wanted.mean).max() < 0.1  # not 0: clipped to 0..255
    assert np.abs(after.mean - wanted.mean).max() < np.abs(before.mean - wanted.mean).max()
    own = match_colors(source, color_statistics(source)).astype(int)
    assert np.abs(own - source)[source.min(2) > 8].max() <= 1


def test_layout_of_the_three_data_sets(city: Path) -> None:
    names = set(contents(city))
    gta = {f"{kind}/{i:05d}.png" for kind in ("images", "labels") for i in (1, 2, 3)}
    expected = {"toy_city.json"}
    expected |= {f"{folder}/{name}" for folder in ("GTA5", "CycleGTA5") for name in gta}
    stems = [
        *(f"train/aachen/aachen_{i:06d}_000019" for i in (0, 1)),
        *(f"train/{c}/{c}_{i:06d}_000019" for c, i in (("bochum", 2), ("bremen", 3))),
        "train/cologne/cologne_000004_000019",
        *(f"val/frankfurt/frankfurt_{i:06d}_000019" for i in (0, 1)),
        *(f"val/{c}/{c}_{i:06d}_000019" for c, i in (("lindau", 2), ("munster", 3))),
    ]
    expected |= {f"Cityscapes/leftImg8bit/{stem}_leftImg8bit.png" for stem in stems}
    expected |= {f"Cityscapes/gtFine/{stem}_gtFine_labelIds.png" for stem in stems}
    assert names == expected


def test_source_files_hold_the_images_and_raw_ids(city: Path) -> None:
    for index in range(3):
        drawn = toy_image("source", index, seed=0, size=(64, 96))
        name = f"{index + 1:05d}.png"
        image = read(city / "GTA5" / "images" / name, "RGB")
        labels = read(city / "GTA5" / "labels" / name, "P")
        assert np.array_equal(image, drawn.image)
        assert np.array_equal(CITYSCAPES.to_train_ids(labels, name), drawn.train_ids)
        translated = read(city / "CycleGTA5" / "images" / name, "RGB")
        assert np.array_equal(labels, read(city / "CycleGTA5" / "labels" / name, "P"))
        assert not np.array_equal(image, translated)


def test_the_palette_shows_the_class_colors(city: Path) -> None:
    path = city / "GTA5" / "labels" / "00001.png"
    with Image.open(path) as labels:
        shown = np.array(labels.convert("RGB"))
    train_ids = CITYSCAPES.to_train_ids(read(path, "P"), path.name)
    assert np.array_equal(shown, CITYSCAPES.colorize(train_ids))


@pytest.mark.parametrize(("split", "offset"), [("train", 0), ("val", 10**6)])
def test_target_files_hold_the_images_and_raw_ids(city: Path, split: str, offset: int) -> None:
    folder = city / "Cityscapes"
    label_paths = sorted((folder / "gtFine" / split).rglob("*.png"))
    for index, path in enumerate(sorted((folder / "leftImg8bit" / split).rglob("*.png"))):
        drawn = toy_image("target", offset + index, seed=0, size=(64, 96))
        labels = read(label_paths[index], "L")
        assert np.array_equal(read(path, "RGB"), drawn.image)
        assert np.array_equal(CITYSCAPES.to_train_ids(labels, path.name), drawn.train_ids)
        assert (labels[drawn.train_ids == IGNORE_INDEX] == 1).all()  # "ego vehicle"


def test_the_same_arguments_write_the_same_bytes(city: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(city)
    assert json.loads((city / "toy_city.json").read_text())["size"] == [64, 96]


def test_a_city_of_the_same_arguments_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "new" / "city"
    write_small(root)
    marker = root / "GTA5" / "images" / "00001.png"
    marker.write_bytes(b"untouched")
    write_small(root)
    assert marker.read_bytes() == b"untouched"


def test_anything_else_in_the_way_is_refused(tmp_path: Path) -> None:
    city, folder = tmp_path / "city", tmp_path / "folder"
    write_small(city)
    before = contents(city)
    with pytest.raises(InputError, match="other arguments"):
        write_small(city, seed=1)
    assert contents(city) == before
    folder.mkdir()
    with pytest.raises(InputError, match="choose another folder"):
        write_small(folder)
    assert list(folder.iterdir()) == []
    with pytest.raises(InputError, match="at least one image"):
        write_toy_city(tmp_path / "empty", validation_images=0)


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupt(count: int) -> None:
        calls.append(count)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_toy_city(tmp_path / "city", size=(64, 96), progress=interrupt)
    assert calls == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []


def test_contact_sheet() -> None:
    sheet = np.asarray(contact_sheet(rows=2, size=(64, 96)))
    assert sheet.shape == (2 * 64, 6 * 96, 3)
    assert np.array_equal(sheet[:64, :96], toy_image("source", 0, seed=0, size=(64, 96)).image)


def test_the_command_reports_a_refusal_in_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "scripts/make_toy_city.py", "--output", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},  # `uda` need not be installed
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].strip().startswith(f"error: {tmp_path} exists")
