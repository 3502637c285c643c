"""No flipped bit of a PNG file passes, though Pillow would decode it."""

from pathlib import Path

import numpy as np
import pytest

from factories import write_png
from uda.data.png_checks import check_png
from uda.utilities.errors import InputError


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.arange(64, dtype=np.uint8).reshape(8, 8))
    check_png(path)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.png cannot be decoded"):
            check_png(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            check_png(path)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        check_png(path)
