"""Photographs of every kind, damaged: palettes, color profiles, EXIF, several frames or pages."""

import io
import struct
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_picture
from PIL import Image, ImageCms

from uda.data.files import range_of, read_header, read_image, read_tiff, stored_image
from uda.data.png_checks import check_png

SIZE = (24, 16)  # width, height


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def whole_files() -> list[bytes]:
    """Small pictures of all formats and modes that are read."""
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 4095, (SIZE[1], SIZE[0])).astype(np.uint16))
    exif = Image.Exif()
    exif[274], exif[315] = 6, "a" * 50
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette, gray = color.quantize(16), color.convert("L")
    frames = {"save_all": True, "append_images": [color, color.rotate(180)]}
    return [
        saved(color, "JPEG", exif=exif, icc_profile=profile),
        saved(color.convert("CMYK"), "JPEG"), saved(gray, "JPEG", exif=exif),
        saved(color, "JPEG", progressive=True),
        saved(color, "PNG", exif=exif, icc_profile=profile), saved(palette, "PNG", transparency=3),
        saved(gray.convert("LA"), "PNG"), saved(color.convert("RGBA"), "PNG"), saved(deep, "PNG"),
        saved(color, "PNG", **frames),
        saved(color, "WEBP", exif=exif, icc_profile=profile), saved(color, "WEBP", **frames),
        saved(color, "TIFF", compression="tiff_lzw", exif=exif), saved(color, "TIFF", **frames),
        saved(deep, "TIFF"), saved(palette, "TIFF"), saved(color, "BMP"), saved(palette, "BMP"),
        saved(color, "MPO", **frames),
    ]  # fmt: skip


def first_rows(path: Path) -> None:
    with stored_image(path) as stored:
        stored.picture(5)


@both_runs
@pytest.mark.filterwarnings("ignore")
def test_photographs(total: int, tmp_path: Path) -> None:
    tally, path, wholes = Tally("photographs"), tmp_path / "photo.png", whole_files()
    for number in range(total // 4):
        random = Random(number)
        path.write_bytes(mutated_picture(random.choice(wholes), random))
        attempt(
            tally, tmp_path, lambda: read_header(path),
            lambda: read_image(path, upright=True, image_range=(0, 4095)),
        )  # fmt: skip
        attempt(Tally("as others"), tmp_path, lambda: range_of((path,)), lambda: read_tiff(path),
                lambda: check_png(path), lambda: first_rows(path))  # fmt: skip
        range_of.cache_clear()
    print(tally)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    """A few kilobytes that unpack to much: texts, profiles, pixels."""
    packed = zlib.compress(b"\0" * 2**26, 9)
    png = saved(Image.new("L", (8, 8)), "PNG")
    begin, rest = png[:33], png[33:]
    header = struct.pack(">IIBBBBB", 2**17, 2**17, 8, 0, 0, 0, 0)
    files = [
        begin + chunk(b"zTXt", b"a\0\0" + packed) + rest,
        begin + chunk(b"iTXt", b"a\0\1\0\0\0" + packed) + rest,
        begin + chunk(b"iCCP", b"a\0\0" + packed) + rest,
        png[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + rest[-12:],
        saved(Image.new("1", (20_000, 16_000)), "TIFF", compression="group4"),
    ]
    path = tmp_path / "bomb.png"
    for content in files:
        path.write_bytes(content)
        assert len(content) < 2**20
        attempt(Tally("bombs"), tmp_path, lambda: read_header(path), lambda: read_image(path))


def test_pages_that_lead_to_each_other(tmp_path: Path) -> None:
    """A TIFF whose second directory is its first one."""
    content = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    (first,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[first : first + 2])
    place = first + 2 + 12 * entries
    content[place : place + 4] = struct.pack("<I", first)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    attempt(Tally("rings"), tmp_path, lambda: read_header(path), lambda: read_image(path))
