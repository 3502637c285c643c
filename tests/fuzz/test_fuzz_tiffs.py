"""TIFFs that a preparation reads: flipped bytes, cut, other kinds under their name."""

from pathlib import Path
from random import Random

import numpy as np
from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_bytes
from PIL import Image
from test_fuzz_labels import saved

from uda.data.files import read_tiff, tiff_size
from uda.data.preparation.isprs_tiles import labels_of_colors


def whole_files() -> list[bytes]:
    colors = np.array([(0, 0, 0), (255, 255, 255), (0, 0, 255), (255, 0, 0)], np.uint8)
    picture = Image.fromarray(colors[np.random.default_rng(0).integers(0, 4, (16, 24))])
    tiffs = [saved(picture, "TIFF"), saved(picture.convert("L"), "TIFF")]
    return 4 * tiffs + [saved(picture, kind) for kind in ("PNG", "BMP", "JPEG")]


@both_runs
def test_tiffs(total: int, tmp_path: Path) -> None:
    tally, path, wholes = Tally("TIFFs"), tmp_path / "labels.tif", whole_files()
    for number in range(total // 4):
        random = Random(number)
        path.write_bytes(mutated_bytes(random.choice(wholes), random))
        attempt(
            tally,
            tmp_path,
            lambda: tiff_size(path),
            lambda: labels_of_colors(np.asarray(read_tiff(path)), str(path)),
        )
    print(tally)
