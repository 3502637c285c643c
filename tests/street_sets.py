"""The data sets of street scenes as their downloads unpack: layout, names and encoding of each.

The tables are written down once more, by hand: that both say the same is what tests compare.
"""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from factories import Bytes

SIZE = (6, 10)  # pixels (height, width)
IGNORED = 255
# What Cityscapes' ids of the train ids 0 to 18 are.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

Values = npt.NDArray[np.integer]


def street(seed: int, without: tuple[int, ...] = (), classes: int = 19) -> Bytes:
    """Train ids (H, W) of all classes and ignored pixels, in a random order."""
    allowed = [train_id for train_id in range(classes) if train_id not in without] + [IGNORED]
    found = np.resize(np.array(allowed, np.uint8), SIZE[0] * SIZE[1])
    return np.random.default_rng(seed).permutation(found).reshape(SIZE)


def encoded(train_ids: Bytes, table: Mapping[int, int]) -> Bytes:
    """The raw ids (H, W) of train ids, one for each."""
    values = np.zeros(256, np.uint8)
    for train_id, raw_id in table.items():
        values[train_id] = raw_id
    return values[train_ids]


def write_deep(path: Path, values: Values) -> Path:
    """A PNG with 16 bits per channel of values (H, W, 3) or, with alpha, (H, W, 4)."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_gray(path: Path, raw: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(raw).save(path)


def write_palette(path: Path, raw: Bytes) -> None:
    """A palette PNG whose index is the id, with colors that have nothing to do with it."""
    picture = Image.fromarray(raw)
    picture.putpalette([(37 * value + 11) % 256 for value in range(3 * 66)])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_red_of_16_bits(path: Path, raw: Bytes) -> None:
    """SYNTHIA's: the class in red, the instance in green, of 16 bits."""
    picture = np.zeros((*raw.shape, 3), np.int64)
    picture[..., 0] = raw
    picture[..., 1] = 976 + np.arange(raw.size).reshape(raw.shape)
    write_deep(path, picture)


def write_first_of_four(path: Path, raw: Bytes) -> None:
    """UrbanSyn's: the class in the first of several channels."""
    write_gray(path, np.stack([raw, raw, raw, np.full_like(raw, 255)], axis=2))


def write_polygons(path: Path, raw: Bytes) -> None:
    """IDD's: the names of objects and their outlines; each pixel is one here. What is drawn first
    and hidden by all others is a sky, and a deleted object is a road."""
    height, width = raw.shape
    everything = [[0, 0], [width, 0], [width, height], [0, height]]
    objects = [{"label": "sky", "polygon": everything, "deleted": 0, "draw": True}]
    for (y, x), value in np.ndenumerate(raw):
        corner = [[x, y], [x, y], [x, y]]
        objects.append({"label": IDD_NAMES[int(value)], "polygon": corner, "deleted": 0})
    objects.append({"label": "road", "polygon": everything, "deleted": 1})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects}))


IDD_NAMES = {
    0: "road", 3: "sidewalk", 29: "building", 20: "wall", 21: "fence", 26: "pole",
    25: "traffic light", 24: "traffic sign", 32: "vegetation", 5: "non-drivable fallback",
    33: "sky", 6: "person", 8: "rider", 12: "car", 13: "truck", 14: "bus", 17: "train",
    9: "motorcycle", 10: "bicycle", 11: "autorickshaw",
}  # fmt: skip


@dataclass(frozen=True)
class Original:
    """A data set as it is downloaded; `image` and `labels` have {split} and {stem}."""

    folder: str
    splits: Mapping[str, str]  # how the folders of the splits with labels are called
    image: str
    labels: str
    raw_ids: Mapping[int, int]  # one of each train id, 255 too
    write: Callable[[Path, Bytes], None] = write_gray
    stems: tuple[str, ...] = ("a", "b")  # folders in them are written with __ by the library
    counts: tuple[tuple[int, ...], ...] = ()  # known ones, of `splits`
    classes: int = 19

    @property
    def absent(self) -> tuple[int, ...]:
        return tuple(train_id for train_id in range(self.classes) if train_id not in self.raw_ids)

    def stems_of(self, split: str) -> tuple[str, ...]:
        """Those of one split: no two splits have an image in common."""
        place = list(self.splits).index(split)
        return tuple(f"{stem}{place or ''}" for stem in self.stems)

    def street(self, seed: int) -> Bytes:
        return street(seed, self.absent, self.classes)

    def write_to(self, root: Path) -> dict[str, dict[str, Bytes]]:
        """Writes every split below a data root; the train ids by split and stem."""
        written: dict[str, dict[str, Bytes]] = {}
        for split, folder in self.splits.items():
            for stem in self.stems_of(split):
                seed = sum(map(ord, split + stem))
                where = {"split": folder, "stem": stem}
                image = root / self.folder / self.image.format(**where)
                image.parent.mkdir(parents=True, exist_ok=True)
                picture = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
                Image.fromarray(picture).save(image)
                train_ids = self.street(seed)
                self.write(
                    root / self.folder / self.labels.format(**where),
                    encoded(train_ids, self.raw_ids),
                )
                written.setdefault(split, {})[stem] = train_ids
        return written


_TRAIN = {"train": "train"}
_TRAIN_VAL = {"train": "train", "val": "val"}
_TRAIN_IDS = {i: i for i in range(19)} | {255: 255}
_CITYSCAPES = dict(enumerate(CITYSCAPES_IDS)) | {255: 4}
_SYNTHIA = {0: 3, 1: 4, 2: 2, 3: 21, 4: 5, 5: 7, 6: 15, 7: 9, 8: 6, 10: 1, 11: 10, 12: 17, 13: 8,
            15: 19, 17: 12, 18: 11, 255: 22}  # fmt: skip
_MAPILLARY = {0: 24, 1: 2, 2: 17, 3: 6, 4: 3, 5: 47, 6: 48, 7: 50, 8: 30, 9: 29, 10: 27, 11: 19,
              12: 21, 13: 55, 14: 61, 15: 54, 16: 58, 17: 57, 18: 52, 255: 65}  # fmt: skip
_IDD = {0: 0, 1: 3, 2: 29, 3: 20, 4: 21, 5: 26, 6: 25, 7: 24, 8: 32, 9: 5, 10: 33, 11: 6, 12: 8,
        13: 12, 14: 13, 15: 14, 16: 17, 17: 9, 18: 10, 255: 11}  # fmt: skip
_CAMVID19 = {10: 0, 2: 1, 5: 2, 0: 3, 1: 4, 8: 5, 7: 6, 4: 7, 13: 8, 11: 9, 12: 10, 255: 11}


def _acdc(condition: str, folder: str, counts: tuple[tuple[int, ...], ...]) -> Original:
    return Original(
        "ACDC", _TRAIN_VAL,
        f"rgb_anon/{folder}/{{split}}/GOPR0475/{{stem}}_rgb_anon.png",
        f"gt/{folder}/{{split}}/GOPR0475/{{stem}}_gt_labelTrainIds.png",
        _TRAIN_IDS, stems=(f"GOPR0475_frame_{condition}1", "GOPR0475_frame_000042"), counts=counts,
    )  # fmt: skip


def _foggy(beta: str) -> Original:
    return Original(
        "Cityscapes", _TRAIN_VAL,
        f"leftImg8bit_foggy/{{split}}/aachen/{{stem}}_leftImg8bit_foggy_beta_{beta}.png",
        "gtFine/{split}/aachen/{stem}_gtFine_labelIds.png",
        _CITYSCAPES, stems=("aachen_000000_000019", "aachen_000001_000019"),
        counts=((2975,), (500,)),
    )  # fmt: skip


def _bdd(image: str, labels: str) -> Original:
    return Original("bdd100k", _TRAIN_VAL, image, labels, _TRAIN_IDS, stems=("0004a4c0-d4dff0ad",),
                    counts=((7000,), (1000,)))  # fmt: skip


def _mapillary(labels: str) -> Original:
    return Original(
        "Mapillary", {"train": "training", "val": "validation"}, "{split}/images/{stem}.jpg",
        labels, _MAPILLARY, write_palette, stems=("__8G8c4pXaMJ5_Vj0BQw", "_1Gn_xkw7sa_i9GU4mkxxQ"),
        counts=((18000,), (2000,)),
    )  # fmt: skip


def _idd(suffix: str) -> Original:
    return Original(
        "IDD_Segmentation", _TRAIN_VAL, f"leftImg8bit/{{split}}/{{stem}}_leftImg8bit{suffix}",
        "gtFine/{split}/{stem}_gtFine_polygons.json", _IDD, write_polygons,
        stems=("0/frame0029", "119/frame0029"), counts=((6993,), (981,)),
    )  # fmt: skip


def _camvid(raw_ids: Mapping[int, int], classes: int) -> Original:
    return Original(
        "CamVid", {"train": "train", "val": "val", "test": "test"}, "{split}/{stem}.png",
        "{split}annot/{stem}.png", raw_ids, stems=("0001TP_006690",),
        counts=((367,), (101,), (233,)), classes=classes,
    )  # fmt: skip


def _synthia(labels: str = "LABELS", lane_marking_is: int = 255) -> Original:
    return Original(
        "RAND_CITYSCAPES", _TRAIN, "RGB/{stem}.png", f"GT/{labels}/{{stem}}.png",
        _SYNTHIA | {255: 13, lane_marking_is: 22}, write_red_of_16_bits,
        stems=("0000000", "0000001"), counts=((9400,),),
    )  # fmt: skip


# By the library's name of the set and of its form.
ORIGINALS: Mapping[str, Original] = {
    "synthia": _synthia(),
    "synthia/labels": _synthia("labels"),
    "synthia_lanes": _synthia(lane_marking_is=0),
    "urbansyn": Original(
        "UrbanSyn", _TRAIN, "rgb/rgb_{stem}.png", "ss/ss_{stem}.png", _TRAIN_IDS | {255: 19},
        write_first_of_four, stems=("0001", "0002"), counts=((7539,),),
    ),
    "synscapes": Original(
        "Synscapes", _TRAIN, "img/rgb/{stem}.png", "img/class/{stem}.png", _CITYSCAPES,
        stems=("1", "2"), counts=((25000,),),
    ),
    "acdc": _acdc("00004", "night", ((1600,), (406,))),
    "acdc_fog": _acdc("00001", "fog", ((400,), (100,))),
    "acdc_night": _acdc("00001", "night", ((400,), (106,))),
    "acdc_rain": _acdc("00001", "rain", ((400,), (100,))),
    "acdc_snow": _acdc("00001", "snow", ((400,), (100,))),
    "dark_zurich": Original(
        "DarkZurich", {"val": "val"}, "rgb_anon/{split}/night/GOPR0356/{stem}_rgb_anon.png",
        "gt/{split}/night/GOPR0356/{stem}_gt_labelTrainIds.png", _TRAIN_IDS,
        stems=("GOPR0356_frame_000321", "GOPR0356_frame_000324"), counts=((50,),),
    ),
    "foggy_cityscapes_0005": _foggy("0.005"),
    "foggy_cityscapes_001": _foggy("0.01"),
    "foggy_cityscapes_002": _foggy("0.02"),
    "bdd100k": _bdd("images/10k/{split}/{stem}.jpg", "labels/sem_seg/masks/{split}/{stem}.png"),
    "bdd100k/2018": _bdd("seg/images/{split}/{stem}.jpg", "seg/labels/{split}/{stem}_train_id.png"),
    "mapillary": _mapillary("{split}/labels/{stem}.png"),
    "mapillary/2.0": _mapillary("{split}/v1.2/labels/{stem}.png"),
    "idd": _idd(".png"),
    "idd/part II": _idd(".jpg"),
    "nightcity": Original(
        "NightCity", _TRAIN_VAL, "images/{split}/{stem}.png", "label/{split}/{stem}_labelIds.png",
        _CITYSCAPES, stems=("Dubai_0016", "Hongkong_0001"), counts=((2998, 2997), (1299, 1300)),
    ),
    "kitti": Original(
        "KITTI", {"train": "training"}, "{split}/image_2/{stem}.png", "{split}/semantic/{stem}.png",
        _CITYSCAPES, stems=("000000_10", "000001_10"), counts=((200,),),
    ),
    "wilddash": Original(
        "WildDash", _TRAIN, "images/{stem}.jpg", "labels/{stem}.png", _CITYSCAPES | {255: 35},
        stems=("aa0000_100000", "ab0000_100000"), counts=((4256,),),
    ),
    "camvid": _camvid({i: i for i in range(11)} | {255: 11}, 11),
    "camvid19": _camvid(_CAMVID19, 19),
}  # fmt: skip


def name_of(form: str) -> str:
    """The library's name of the set."""
    return form.partition("/")[0]
