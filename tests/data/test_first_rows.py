"""Decoding the first rows of an image: the pixels of the whole one, and nothing damaged passes."""

import io
import zlib
from functools import cache
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from uda.data.config import DomainConfig
from uda.data.files import read_image, stored_image
from uda.data.first_rows import keep_first_rows
from uda.data.samples import Sample
from uda.data.transforms import load_cropped
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError

SIZE = (40, 24)  # height, width


def color() -> Image.Image:
    """Smooth with noise, so that a PNG uses several filters."""
    rows, columns = np.indices(SIZE)
    smooth = np.stack([5 * rows, 9 * columns, rows + columns], axis=2)
    noise = np.random.default_rng(0).integers(0, 20, smooth.shape)
    return Image.fromarray(((smooth + noise) % 256).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return pack(">I", len(content)) + body + pack(">I", zlib.crc32(body))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The file with more parts after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def interlaced() -> bytes:
    """Gray of 1x9 pixels in Adam7's passes: of one column, 1, 5, 3 and 7, then the odd ones."""
    rows = [0, 8, 4, 2, 6, 1, 3, 5, 7]
    header = pack(">IIBBBBB", 1, 9, 8, 0, 0, 0, 1)
    pixels = b"".join(bytes([0, 10 * row]) for row in rows)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def in_small_parts(png: bytes) -> bytes:
    """The same pixels, seven bytes of them in each part."""
    place = png.index(b"IDAT") - 4
    length = int.from_bytes(png[place : place + 4], "big")
    pixels = png[place + 8 : place + 8 + length]
    parts = [chunk(b"IDAT", pixels[first : first + 7]) for first in range(0, length, 7)]
    return png[:place] + b"".join(parts) + png[place + 12 + length :]


@cache
def kinds() -> dict[str, bytes]:
    image, exif, text = color(), Image.Exif(), PngImagePlugin.PngInfo()
    exif[274] = 6
    text.add_text("a", "b", zip=True)
    gray, palette = image.convert("L"), image.quantize(200)
    rgb = saved(image)
    deep = (np.asarray(gray).astype(np.uint16) * 13) % 4096
    return {
        "RGB": rgb,
        "RGBA": saved(image.convert("RGBA")),
        "gray": saved(gray),
        "gray and transparency": saved(gray.convert("LA")),
        "black and white": saved(image.convert("1")),
        "palette": saved(palette),
        "palette with transparency": saved(palette, transparency=bytes(range(200))),
        "palette with one transparent color": saved(palette, transparency=3),
        "palette of 1 bit": saved(image.quantize(2), bits=1),
        "palette of 2 bits": saved(image.quantize(4), bits=2),
        "palette of 4 bits": saved(image.quantize(16), bits=4),
        "gray with tRNS": with_chunks(saved(gray), chunk(b"tRNS", b"\0\7")),
        "RGB with tRNS": with_chunks(rgb, chunk(b"tRNS", b"\0\1\0\2\0\3")),
        "gAMA": with_chunks(rgb, chunk(b"gAMA", pack(">I", 20000))),
        "sRGB": with_chunks(rgb, chunk(b"sRGB", b"\0")),
        "iCCP": with_chunks(rgb, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"b"))),
        "EXIF": saved(image, exif=exif),
        "text": saved(image, pnginfo=text),
        "text after the pixels": rgb[:-12] + chunk(b"tEXt", b"a\0b") + rgb[-12:],
        "small parts": in_small_parts(rgb),
        "interlaced": interlaced(),
        "frames": saved(image, save_all=True, append_images=[image.rotate(180)]),
        "bytes at the end": rgb + b"more",
        "16 bits": saved(Image.fromarray(deep)),
        "not compressed": saved(image, compress_level=0),
        "JPEG": saved(image, "JPEG", exif=exif),
        "TIFF": saved(image, "TIFF", compression="tiff_lzw"),
        "BMP": saved(image, "BMP"),
        "WEBP": saved(image, "WEBP"),
    }


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("upright", [False, True])
def test_the_pixels_are_those_of_the_whole_image(tmp_path: Path, kind: str, upright: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(kinds()[kind])
    whole = read_image(path, upright=upright, image_range=(0, 4095))
    for rows in sorted({1, 2, 5, min(20, whole.height), whole.height - 2, whole.height}):
        with stored_image(path, upright=upright, image_range=(0, 4095)) as stored:
            assert stored.size == (whole.height, whole.width)
            first = stored.picture(rows)
        assert first.mode == "RGB"
        assert first.width == whole.width
        assert rows <= first.height <= whole.height
        assert np.array_equal(np.asarray(first)[:rows], np.asarray(whole)[:rows])


def test_no_more_is_decoded_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for kind in ("RGB", "gray", "palette", "small parts"):
        path.write_bytes(kinds()[kind])
        with stored_image(path) as stored:
            assert stored.picture(5).height == 5


def test_tiles_of_older_versions_of_pillow(tmp_path: Path) -> None:
    """Plain tuples, without names."""
    path = tmp_path / "a.png"
    path.write_bytes(kinds()["RGB"])
    with Image.open(path) as image:
        image.tile = [tuple(tile) for tile in image.tile]  # type: ignore[misc]
        keep_first_rows(image, 7)
        assert np.array_equal(np.asarray(image), np.asarray(color())[:7])


def outcome(path: Path, rows: int | None) -> bytes | str:
    try:
        with stored_image(path) as stored:
            return np.asarray(stored.picture(rows))[:5].tobytes()
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["RGB", "small parts"])
def test_what_is_damaged_is_refused_as_before(tmp_path: Path, kind: str) -> None:
    """One bit of any byte, or the end: the answer is that of decoding all of it."""
    path, content = tmp_path / "a.png", kinds()[kind]
    for place in range(0, len(content), 11):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        for damaged in (flipped, content[:place]):
            path.write_bytes(damaged)
            assert outcome(path, 5) == outcome(path, None)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "bilinear_no_antialias"])
@pytest.mark.parametrize("size", [(40, 24), (20, 12), (33, 23), (60, 40), (13, 24)])
def test_crops_are_those_of_the_decoded_image(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interpolation: str,
    size: tuple[int, int],
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(kinds()["RGB"])
    domain = DomainConfig(datasets=("drawn",), size=size, interpolation=interpolation)  # type: ignore[arg-type]

    def crops() -> list[bytes]:
        return [
            load_cropped(
                Sample("drawn", "a", path, None), domain, crop=(9, 8), label_space=CITYSCAPES,
                pseudo_labels=None, rng=np.random.default_rng(seed),
            ).image.tobytes()
            for seed in range(12)
        ]  # fmt: skip

    found = crops()
    monkeypatch.setattr("uda.data.files.keep_first_rows", lambda image, rows: None)
    assert found == crops()
