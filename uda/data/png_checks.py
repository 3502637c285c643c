"""Whether a PNG file is whole: Pillow does not look at the checksums of the pixels."""

import struct
import zlib
from pathlib import Path

from uda.utilities.errors import InputError
from uda.utilities.reading import read_bytes, why

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST = 2**28  # bytes
_FRAME = 12  # bytes of a chunk besides its content: length, name and checksum


def check_png(path: Path) -> None:
    """Raises InputError, naming the file, unless each part of a PNG file has its checksum."""
    try:
        content = memoryview(read_bytes(path, _LARGEST))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({why(error)})") from None
    if not is_whole_png(content):
        raise InputError(
            f"{path} cannot be decoded (a part of it does not have its checksum): write it again"
        )


def is_whole_png(content: memoryview) -> bool:
    """Whether a PNG file of this content ends with its last part, and each has its checksum."""
    place, name = len(_SIGNATURE), b""
    whole = content[:place] == _SIGNATURE
    while whole and place < len(content):
        (length,) = struct.unpack(">I", bytes(content[place : place + 4]).rjust(4, b"\xff"))
        name = bytes(content[place + 4 : place + 8])
        end = place + _FRAME + length
        stored = bytes(content[end - 4 : end])
        whole = end <= len(content) and stored == _crc(content[place + 4 : end - 4])
        place = end
    return whole and name == b"IEND"


def _crc(content: memoryview) -> bytes:
    return struct.pack(">I", zlib.crc32(content))
