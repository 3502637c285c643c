"""Images as people have them: gray, palette, CMYK, 16 bits, TIFF, turned by their cameras."""

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from factories import noise, write_png
from tiny_runs import tiny_model
from uda.data.described.layouts import described_layout
from uda.data.files import range_of, read_header, read_image
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_raw_labels
from uda.data.picture_kinds import kind_remarks
from uda.data.registry import check_sizes, list_dataset
from uda.labels.spaces import Coding
from uda.utilities.errors import InputError

SIZE = (12, 16)
TOML = """images = "images/{split}/{name}.png"
labels = "labels/{split}/{name}.png"
splits = ["train", "val"]
classes = [{ name = "a", value = 0 }, { name = "b", value = 1 }]
"""


def write_deep(path: Path, values: npt.NDArray[np.uint16]) -> Path:
    """A PNG of 16 bits per channel: gray, gray and alpha, RGB or RGBA by its shape (H, W[, C])."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.size // (height * width)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        )
    )
    return path


def twelve_bits(*shape: int) -> npt.NDArray[np.uint16]:
    values = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    values[0, 0] = 4095
    return values


@pytest.mark.parametrize(
    ("mode", "suffix", "kind"),
    [("L", ".png", "gray"), ("L", ".jpg", "gray"), ("LA", ".png", "gray"), ("P", ".png", "palette"),
     ("1", ".png", "black and white"), ("CMYK", ".jpg", "CMYK"), ("CMYK", ".tif", "CMYK"),
     ("RGB", ".tiff", ""), ("RGB", ".bmp", ""), ("RGB", ".webp", ""), ("RGBA", ".png", "")],
)  # fmt: skip
def test_every_usual_kind_becomes_rgb(tmp_path: Path, mode: str, suffix: str, kind: str) -> None:
    plain = Image.fromarray(np.full((*SIZE, 3), 200, np.uint8))
    picture = plain.quantize(2) if mode == "P" else plain.convert(mode)
    picture.save(tmp_path / f"x{suffix}")
    read = read_image(tmp_path / f"x{suffix}")
    assert read.mode == "RGB"
    white = np.full((*SIZE, 3), 255 if mode == "1" else 200)
    if mode != "1":  # that is dithered
        assert np.abs(np.asarray(read).astype(int) - white).max() <= 3
    assert read_header(tmp_path / f"x{suffix}").kind == kind


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_twelve_bits_are_not_nearly_black(tmp_path: Path, channels: int) -> None:
    """0..4095 become 0..255, whatever file has the brightest pixel."""
    values = twelve_bits(*SIZE, channels)
    bright = write_deep(tmp_path / "bright.png", values)
    dark = write_deep(tmp_path / "dark.png", values // 8)
    image_range = range_of((bright, dark))
    assert image_range == (0, 4095)
    for path, own in ((bright, values), (dark, values // 8)):
        read = np.asarray(read_image(path, image_range=image_range))
        color = own[..., :3] if channels > 2 else own[..., :1]
        assert np.array_equal(read, np.broadcast_to(np.rint(color / 4095 * 255), read.shape))
    kind = "16 bits per channel" if channels > 1 else "gray, 16 bits per channel"
    assert read_header(bright).kind == kind


def test_the_range_of_a_thermal_camera_is_what_it_uses(tmp_path: Path) -> None:
    values = np.linspace(20_000, 25_000, 12 * 16).reshape(SIZE).astype(np.uint16)
    path = write_deep(tmp_path / "thermal.png", values)
    assert range_of((path,)) == (20_000, 25_000)
    read = np.asarray(read_image(path, image_range=(20_000, 25_000)))
    assert (read.min(), read.max()) == (0, 255)
    assert range_of((write_png(tmp_path / "usual.png", noise(0)),)) is None


def test_sixteen_bits_in_a_tiff_of_strips(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    values = twelve_bits(*SIZE, 3)
    for number, options in enumerate(([], [cv2.IMWRITE_TIFF_COMPRESSION, 1])):
        path = tmp_path / f"{number}.tif"
        cv2.imwrite(str(path), values[..., ::-1], options)
        read = np.asarray(read_image(path, image_range=(0, 4095)))
        assert np.array_equal(read, np.rint(values / 4095 * 255))


@pytest.mark.parametrize(("highest", "image_range"), [(1.0, (0, 1)), (255.0, (0, 255))])
def test_floats_in_a_tiff(tmp_path: Path, highest: float, image_range: tuple[float, float]) -> None:
    values = np.linspace(0, highest, 12 * 16, dtype=np.float32).reshape(SIZE)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert range_of((tmp_path / "x.tif",)) == image_range
    read = np.asarray(read_image(tmp_path / "x.tif", image_range=image_range))
    assert np.abs(read[..., 0] - values / highest * 255).max() <= 0.5


def test_networks_refuse_floats_of_0_to_255() -> None:
    network = tiny_model().build(3).eval()
    assert network(torch.rand(1, 3, 64, 64)).logits.shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="values up to 255; allowed: float RGB"):
        tiny_model().build(3).eval()(torch.full((1, 3, 64, 64), 255.0))


def described(folder: Path, text: str = TOML) -> str:
    (folder / "own.toml").write_text(text)
    return str(folder / "own.toml")


def test_one_range_for_all_splits_and_it_is_said_once(tmp_path: Path) -> None:
    for split, factor in (("train", 1), ("val", 2)):
        for number in range(3):
            values = twelve_bits(*SIZE, 3) // (4 * factor)
            write_deep(tmp_path / f"images/{split}/{number}.png", values)
            write_png(tmp_path / f"labels/{split}/{number}.png", np.zeros(SIZE, np.uint8))
    name = described(tmp_path)
    samples = [
        sample
        for split in ("val", "train")
        for sample in list_dataset(Path(), name, split, labeled=True)
    ]
    assert {sample.image_range for sample in samples} == {(0, 1023)}
    (said,) = kind_remarks(samples, KnownFiles())
    assert said.startswith("6 of 6 images of own are 16 bits per channel, their values 0 to 1023 ")
    own = described(tmp_path, TOML + "\n").replace("own.toml", "other.toml")
    Path(own).write_text("image_range = [0, 4095]\n" + TOML)
    chosen = list_dataset(Path(), own, "val", labeled=False)
    assert {sample.image_range for sample in chosen} == {(0, 4095)}


def test_a_picture_with_more_bits_than_those_looked_at_is_not_guessed(tmp_path: Path) -> None:
    path = write_deep(tmp_path / "deep.png", twelve_bits(*SIZE, 3))
    with pytest.raises(InputError, match=r"deep\.png has more than 8 bits.*image_range = \[0, 40"):
        read_image(path)


# --- turned by the camera


def write_turned(path: Path, orientation: int, size: tuple[int, int] = SIZE) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(0, size)).save(path, exif=exif)
    return path


def turned_set(folder: Path, orientation: int, labels: tuple[int, int], more: str = "") -> str:
    write_turned(folder / "images/train/a.jpg", orientation)
    write_png(folder / "labels/train/a.png", np.zeros(labels, np.uint8))
    return described(folder, more + TOML.replace("{name}.png", "{name}.jpg", 1))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_photograph_upside_down_is_caught_by_name(tmp_path: Path, orientation: int) -> None:
    """Stored or as shown: both have the labels' size, so nothing but the user can tell."""
    name = turned_set(tmp_path, orientation, SIZE)
    with pytest.raises(InputError, match=r'a\.jpg is .*EXIF.*orientation = "upright".*"stored"'):
        check_sizes(list_dataset(Path(), name, "train", labeled=True), KnownFiles())
    for said in ("upright", "stored"):
        name = turned_set(tmp_path, orientation, SIZE, f'orientation = "{said}"\n')
        (sample,) = list_dataset(Path(), name, "train", labeled=True)
        check_sizes([sample], KnownFiles())
        assert sample.upright is (said == "upright")


def test_the_size_of_labels_tells_of_a_quarter_turn(tmp_path: Path) -> None:
    name = turned_set(tmp_path, 6, SIZE)
    check_sizes(list_dataset(Path(), name, "train", labeled=True), KnownFiles())  # both as stored
    name = turned_set(tmp_path, 6, SIZE[::-1])
    with pytest.raises(InputError, match=r'labels .* of the turned picture: .* = "upright"'):
        check_sizes(list_dataset(Path(), name, "train", labeled=True), KnownFiles())
    name = turned_set(tmp_path, 6, SIZE[::-1], 'orientation = "upright"\n')
    (sample,) = list_dataset(Path(), name, "train", labeled=True)
    check_sizes([sample], KnownFiles())
    assert read_image(sample.image, upright=bool(sample.upright)).size == SIZE


def test_turned_images_without_labels_are_said(tmp_path: Path) -> None:
    name = turned_set(tmp_path, 3, SIZE)
    (said,) = kind_remarks(list_dataset(Path(), name, "train", labeled=False), KnownFiles())
    assert said.startswith("1 of 1 images of own are turned by their EXIF orientation, the first")


# --- labels


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_labels_of_few_bits(tmp_path: Path, bits: int) -> None:
    """Pillow scales them to 0..255: stored ids where no label is 255, else what a program that
    makes files smaller has made of 8 bits."""
    rows = np.full((4, 8 * bits // 8), 0b01101100 if bits < 4 else 0x1C, np.uint8)
    header = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path = tmp_path / "labels.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
        for n, d in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    ))  # fmt: skip
    stored = {1: [0, 1, 1, 0], 2: [1, 2, 3, 0], 4: [1, 12, 1, 12]}[bits]
    read = np.asarray(read_raw_labels(path, coding=Coding(stored=True)))
    assert read[0, :4].tolist() == stored
    whole = np.asarray(read_raw_labels(path))
    assert whole[0, :4].tolist() == [value * 255 // (2**bits - 1) for value in stored]


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".png"])
def test_label_files_of_other_formats(tmp_path: Path, suffix: str) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(labels).save(tmp_path / f"x{suffix}")
    assert np.array_equal(np.asarray(read_raw_labels(tmp_path / f"x{suffix}")), labels)
    if suffix != ".bmp":
        Image.fromarray(labels.astype(np.uint16)).save(tmp_path / f"y{suffix}")
        assert np.array_equal(np.asarray(read_raw_labels(tmp_path / f"y{suffix}")), labels)


def test_a_layout_takes_its_words_from_the_file(tmp_path: Path) -> None:
    layout = described_layout(described(tmp_path, 'orientation = "upright"\n' + TOML))
    assert layout.orientation == "upright"
    with pytest.raises(InputError, match="image_range is"):
        described_layout(described(tmp_path, "image_range = [5, 5]\n" + TOML))
