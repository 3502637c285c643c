"""A folder of predicted label maps paired by name with a folder of Cityscapes labels, or with the
labels of any data set's split.

    <labels>/**/<stem>_gtFine_labelIds.png     raw label ids
    <predictions>/**/<stem>*.png               one for each, of the same size

where a stem is `<city>_<sequence>_<frame>`, such as aachen_000000_000019. So the names that other
projects give their predictions (`_leftImg8bit.png`, `_pseudo_trainIds.png`) fit as they are.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from uda.data.datasets.cityscapes import LABEL_SUFFIX
from uda.data.file_tree import walk
from uda.data.files import read_header
from uda.data.label_files import label_header, read_raw_labels
from uda.data.samples import Sample, is_left_by_mac
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError, require

Ids = Literal["train", "raw"]

_PICTURE_SUFFIX = "_color.png"  # colored copies that other projects write next to their predictions
_OF_PSEUDO_LABELS = "_pseudo_trainIds"  # of names that pseudo_label.py writes
_STEM = re.compile(r"[^_]+_\d+_\d+")
_KINDS = ("PNG L", "PNG P")  # 8-bit gray and palette


class Pair(NamedTuple):
    """The two files of one image."""

    stem: str
    prediction: Path
    labels: Path


def pair_files(predictions: Path, labels: Path) -> tuple[list[Pair], list[Path]]:
    """A prediction below one folder for each label file below the other, sorted by stem, and the
    predictions that are left over.

    Links to folders are followed. Raises InputError, naming the first file, when there are no
    labels, when a label file has no prediction or an odd name, or when two files are of one image.
    """
    true = _by_stem(_files(labels, LABEL_SUFFIX))
    require(
        bool(true),
        f"there is no *{LABEL_SUFFIX} below {labels}: give a folder of Cityscapes' labels, such "
        "as gtFine/val",
    )
    found = _files(predictions, ".png")
    found = [path for path in found if not path.name.endswith(_PICTURE_SUFFIX)]
    predicted = _by_stem(path for path in found if _stem(path) in true)
    missing = [stem for stem in true if stem not in predicted]
    if missing:
        raise InputError(
            f"{true[missing[0]]} has no prediction, nor have {len(missing) - 1} more of "
            f"{len(true)} label files; expected {missing[0]}*.png below {predictions}"
        )
    pairs = [Pair(stem, predicted[stem], path) for stem, path in sorted(true.items())]
    return pairs, [path for path in found if _stem(path) not in true]


def pair_samples(predictions: Path, samples: Sequence[Sample]) -> tuple[list[Pair], list[Path]]:
    """The same for the labels of samples. A prediction is named like its sample, or is in folders
    called so with __ for slashes; or it is called as the file of its image, where no other is."""
    files = Counter(sample.image.stem for sample in samples)
    stems = {s.image.stem: s.stem for s in samples if files[s.image.stem] == 1}
    stems |= {sample.stem: sample.stem for sample in samples}
    predicted: dict[str, Path] = {}
    strays = []
    for path in _files(predictions, ".png"):
        within = path.relative_to(predictions).with_suffix("").as_posix().replace("/", "__")
        names = (within, path.stem, path.stem.removesuffix(_OF_PSEUDO_LABELS))
        stem = next((stems[name] for name in names if name in stems), None)
        if stem is None:
            strays.append(path)
            continue
        other = predicted.setdefault(stem, path)
        require(other == path, f"{other} and {path} are both predictions of {stem}: remove one")
    pairs = [
        Pair(sample.stem, predicted[sample.stem], sample.labels)
        for sample in samples
        if sample.labels is not None and sample.stem in predicted
    ]
    missing = [sample for sample in samples if sample.stem not in predicted]
    if missing:
        raise InputError(
            f"{missing[0].name} has no prediction, nor have {len(missing) - 1} more of "
            f"{len(samples)} images; expected {missing[0].stem}.png below {predictions}"
        )
    return pairs, strays


def check_files(pairs: Sequence[Pair]) -> None:
    """Raises InputError, naming the first, when a prediction is not an 8-bit gray or palette PNG
    or has another size than its labels.

    Reads headers only, so that a wrong file is found before the others are scored.
    """
    with ThreadPoolExecutor(8) as pool:
        complaints = [complaint for complaint in pool.map(_complaint, pairs) if complaint]
    if complaints:
        raise InputError(
            f"{complaints[0]} (so it is with {len(complaints) - 1} more of {len(pairs)} files)"
        )


def read_prediction(
    path: Path, *, ids: Ids, space: LabelSpace
) -> tuple[npt.NDArray[np.uint8], int]:
    """Train ids (H, W) of a file of predictions, num_classes where it predicts no class; and the
    largest value in the file.

    No class is 255 among train ids, and any id of an ignored class among raw ids. Raises
    InputError when a value is neither this nor an id, or the file cannot be read.
    """
    values = np.asarray(read_raw_labels(path))
    meaning = _meaning(ids, space)
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    strangers = [value for value in present if value not in meaning]
    if strangers:
        raise InputError(f"{path}: {_refusal(strangers[0], present, ids=ids, space=space)}")
    table = np.zeros(256, np.uint8)
    table[list(meaning)] = list(meaning.values())
    return table[values], max(present)


def _meaning(ids: Ids, space: LabelSpace) -> dict[int, int]:
    """The class of each value that a file of predictions may hold; num_classes means no class."""
    no_class = space.num_classes
    if ids == "train":
        return {train_id: train_id for train_id in range(no_class)} | {IGNORE_INDEX: no_class}
    return {
        raw_id: no_class if train_id == IGNORE_INDEX else train_id
        for raw_id, train_id in space.raw_to_train.items()
    }


def _refusal(stranger: int, present: list[int], *, ids: Ids, space: LabelSpace) -> str:
    """Why a file that holds the values `present` cannot be of `ids`, and what to do."""
    other: Ids = "raw" if ids == "train" else "train"
    allowed = {
        "train": f"train id; allowed: 0..{space.num_classes - 1}, 255 for no class",
        "raw": f"raw id of {space.name}; allowed: 0..{max(space.raw_to_train)}",
    }[ids]
    fits = set(present) <= _meaning(other, space).keys()
    advice = f"these are {other} ids: give --ids {other}" if fits else "write the file again"
    return f"value {stranger} is not a {allowed}; {advice}"


def _files(folder: Path, suffix: str) -> list[Path]:
    """Every file below `folder` whose name ends in `suffix`, sorted; InputError without one."""
    return sorted(
        folder / found.within / found.name
        for found in walk(folder, hidden=True)
        if found.name.endswith(suffix) and not is_left_by_mac(found.name)
    )


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """The one file of each image; InputError when there are two, or one of no image."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[_stem(path)].append(path)
    if "" in found:
        raise InputError(
            f"{found[''][0]}: a name of Cityscapes begins with <city>_<sequence>_<frame>, such as "
            f"aachen_000000_000019; so it is with {len(found['']) - 1} more files"
        )
    several = [files for files in found.values() if len(files) > 1]
    if several:
        raise InputError(
            f"{several[0][0]} and {several[0][1]} are of one image, and {len(several) - 1} more "
            "images have several files, too: give a folder with one file for each image"
        )
    return {stem: path for stem, (path,) in found.items()}


def _stem(path: Path) -> str:
    """`<city>_<sequence>_<frame>`, which a name begins with; empty if it does not."""
    match = _STEM.match(path.name)
    return match[0] if match else ""


def _complaint(pair: Pair) -> str:
    """What is wrong with a pair, as the headers say; empty if nothing is."""
    try:
        prediction, theirs = read_header(pair.prediction), label_header(pair.labels).size
    except InputError as error:
        return str(error)
    ours, kind = prediction.size, f"{prediction.format} {prediction.mode}"
    if kind not in _KINDS:
        return f"{pair.prediction}: {kind} has no ids; allowed: 8-bit gray or palette PNG"
    if ours != theirs:
        return (
            f"{pair.prediction} is {ours[1]}x{ours[0]}, its labels are {theirs[1]}x{theirs[0]}: "
            "resize the network's output to the labels before taking classes, never the labels"
        )
    return ""
