"""The samples of a data set, listed by the patterns of its `Layout`."""

import difflib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uda.data.deep_images import Range
from uda.data.file_tree import files_below
from uda.data.known_ranges import known_range
from uda.data.list_files import Entry, listed_names, other_labels
from uda.data.patterns import Pattern, name_of
from uda.data.samples import Form, Layout, Sample, Split, seeded_split
from uda.data.translated_folder import is_translated
from uda.utilities.errors import InputError, require, shown

_SLASH = "__"  # in names of samples, which become names of files
_LONGEST_NAME = 180  # bytes; names of files have a suffix, too

Values = tuple[str, ...]  # what the wildcards of an image's pattern stand for


def list_split(layout: Layout, root: Path, split: str, *, labeled: bool) -> list[Sample]:
    """The samples of one split in their fixed, sorted order; `root` is the data set's folder.

    Without `labeled` no label folder is opened, listed or looked for, and no path of a label is
    made. Raises InputError when the split is unknown, a folder is missing or empty, an image has no
    label, or the images are an unfinished translation.
    """
    if split not in layout.splits:
        raise InputError(f"{layout.name} has no split {split!r}; it has {', '.join(layout.splits)}")
    translated = is_translated(root) or layout.translated
    layout = on_disk(layout, root, split, labeled=labeled)
    part = layout.part(split)
    if layout.check is not None:
        layout.check(root, labeled)
    found = _images(layout, root, part)
    chosen = _chosen(layout, root, part, found, labeled=labeled)
    if not chosen:
        raise InputError(f"{root}: no images of split {split!r}; expected {layout.expected}")
    labels: dict[str, Path | None] = dict.fromkeys(chosen)
    if labeled:
        labels |= _label_files(layout, root, part, {name: found[name][1] for name in chosen})
    image_range = _image_range(layout, root, [root / found[name][0] for name in chosen])
    return [
        Sample(
            layout.name,
            _stem(name, part) if layout.named_by_path else _file_stem(name, part),
            root / found[name][0],
            labels[name],
            translated=translated,
            space=layout.label_space,
            upright={"": None}.get(layout.orientation, layout.orientation == "upright"),
            image_range=image_range,
            scenes=layout.scenes,
        )
        for name in chosen
    ]


def _image_range(layout: Layout, root: Path, images: Sequence[Path]) -> Range | None:
    """The values of more than 8 bits that become 0 and 255 in all splits of a data set of the
    user's, if some of the split's `images` that are looked at have so many."""
    if layout.image_range or not layout.description or known_range(tuple(images)) is None:
        return layout.image_range
    every: list[str] = []
    for split in layout.splits:
        with suppress(InputError):  # a split that is not there says nothing
            every += [path for path, _ in _images(layout, root, layout.part(split)).values()]
    return known_range(tuple(root / path for path in sorted(set(every))))


def on_disk(layout: Layout, root: Path, split: str, *, labeled: bool) -> Layout:
    """The layout with the one of its forms that `root`, the data set's folder, has.

    Without `labeled` label folders are not looked for. Raises InputError when there are two forms:
    which files are meant, they would not say.
    """
    if not layout.other_forms:
        return layout
    forms = [Form(layout.images, layout.labels), *layout.other_forms]
    folder = layout.split_folders.get(split, split)
    forms = _present_forms(layout, root, forms, folder, lambda form: form.images)
    if not forms:
        return layout  # what is expected are all of them
    if labeled:
        forms = _present_forms(layout, root, forms, folder, lambda form: form.labels) or forms
    images, labels = forms[0]
    return replace(layout, images=images, labels=labels, other_forms=())


def is_there(layout: Layout, root: Path, split: str) -> bool:
    """Whether there is a folder of the split's images; where other images may lie in it, whether it
    has some of the split."""
    try:
        layout = on_disk(layout, root, split, labeled=False)
        part = layout.part(split)
        folders = [root / pattern.folder(part.folder) for pattern in part.images]
        there = any(folder.is_dir() for folder in folders)
        return there and (not layout.beside or bool(_images(layout, root, part)))
    except InputError:  # something is, and listing it says what is wrong
        return True


def _present_forms(
    layout: Layout, root: Path, forms: list[Form], split: str, part: Callable[[Form], str]
) -> list[Form]:
    """The forms of whose images or labels (`part`) there is a folder; InputError when two are
    different folders."""
    folders = {
        text: root / Pattern(text, layout.name).folder(split)
        for text in dict.fromkeys(map(part, forms))
    }
    there = {text: path for text, path in folders.items() if path.is_dir()}
    distinct = {path.stat().st_ino: path for path in there.values()}
    require(
        len(distinct) < 2,
        f"{root} has two forms of {layout.name}, {' and '.join(map(str, distinct.values()))}: move "
        "one of them away, so that it is certain which is read",
    )
    return [form for form in forms if part(form) in there]


def _images(layout: Layout, root: Path, split: Split) -> dict[str, tuple[str, Values]]:
    """Path and wildcards of each image by its name, sorted; InputError when two have one name."""
    found: dict[str, tuple[str, Values]] = {}
    for pattern in split.images:
        for path in _files(layout, root, pattern, split.folder):
            values = pattern.match(path, split.folder)
            if values is None or _is_label(path, pattern, split):
                continue
            name = name_of(values) if layout.named_by_path else path
            other = found.setdefault(name, (path, values))[0]
            require(
                other == path,
                f"{root}: {other} and {path} are both called {name}: rename one, or make the "
                f"pattern {pattern.text} more specific",
            )
    if layout.named_by_path:
        return dict(sorted(found.items()))
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))


def _files(layout: Layout, root: Path, pattern: Pattern, split: str) -> list[str]:
    """Every file that `pattern` may mean, as a path from `root`."""
    folder = pattern.folder(split)
    top = root / folder
    require(top.is_dir(), f"{top} does not exist; expected {layout.expected}")
    prefix = f"{folder}/" if folder else ""
    return [prefix + path for path in files_below(top, levels=pattern.levels(split))]


def _is_label(path: str, image: Pattern, split: Split) -> bool:
    """Whether a possible image is a label file: it matches the more specific label pattern."""
    labels = split.labels
    particular = labels is not None and labels.literals > image.literals
    return labels is not None and particular and labels.match(path, split.folder) is not None


def _chosen(
    layout: Layout,
    root: Path,
    split: Split,
    found: Mapping[str, tuple[str, Values]],
    *,
    labeled: bool,
) -> list[str]:
    """The names that belong to the split, sorted."""
    names = list(found)
    if split.list_file:
        path = root / split.list_file
        return _listed(path, split, {name: own[0] for name, own in found.items()}, labeled=labeled)
    if not split.share:
        return names
    parts = [part for part in map(layout.part, layout.splits) if part.share]
    shares = [part.share for part in parts]
    places = seeded_split(len(names), [*shares, max(0.0, 1 - sum(shares))], seed=layout.seed)
    own = [part.name for part in parts].index(split.name)
    return [names[place] for place in places[own]]


def _listed(path: Path, split: Split, paths: Mapping[str, str], *, labeled: bool) -> list[str]:
    """The images that a list file names, sorted; InputError when a line has none, or one is listed
    twice. `paths`: of the images, by their names."""
    listed, unknown = listed_names(path, split.name, paths)
    if unknown:
        entry = unknown[0]
        more = f", as for {len(unknown) - 1} more lines" if unknown[1:] else ""
        some = ", ".join(list(paths)[:3])
        raise InputError(
            f"{path}: there is no image called {shown(entry.columns[0])} (line {entry.line})"
            f"{more}; {_nearest(entry.columns[0], paths)}images are called {some} and so on"
        )
    if labeled and split.labels is not None:
        _check_listed_labels(path, split, listed, paths)
    return sorted(listed)


def _nearest(text: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(text[:200], list(names)[:1000], n=1)
    return f'did you mean "{near[0]}"? ' if near else ""


def _check_listed_labels(
    path: Path, split: Split, listed: Mapping[str, Entry], paths: Mapping[str, str]
) -> None:
    """Raises InputError when a line names a label file that is called otherwise than the pattern
    of labels says; no file is looked for."""

    def label_of(name: str) -> str:
        matches = (pattern.match(paths[name], split.folder) for pattern in split.images)
        values = next(values for values in matches if values is not None)
        return split.labels.write(values, split.folder) if split.labels else ""

    for entry, own in other_labels(listed, label_of):
        raise InputError(
            f"{path}, line {entry.line}: {shown(entry.whole)} names another label file than labels "
            f"= {shown(split.labels.text if split.labels else '')} does, {own}: change one of them"
        )


def _label_files(
    layout: Layout, root: Path, split: Split, images: Mapping[str, Values]
) -> dict[str, Path]:
    """The label file of each image; InputError, naming the first, when some are not there."""
    pattern = split.labels
    if pattern is None:
        raise InputError(
            f'{root}: split {split.name} has no labels by its description; give labels = "...", '
            "or use it as a target, which needs none"
        )
    top = root / pattern.folder(split.folder)
    require(top.is_dir(), f"{top} does not exist; expected {layout.expected}")
    paths = {image: pattern.write(values, split.folder) for image, values in images.items()}
    there = _present(root, paths.values())
    missing = [image for image, path in paths.items() if path not in there]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(images)} images have no label, the first is "
            f"{missing[0]}; expected {paths[missing[0]]}: complete the labels, or remove the images"
        )
    return {image: root / path for image, path in paths.items()}


def _present(root: Path, paths: Iterable[str]) -> set[str]:
    """What exists in the folders of these `paths` below `root`; each folder is listed once."""
    there: set[str] = set()
    for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
        prefix = f"{folder}/" if folder else ""
        try:
            there.update(prefix + entry.name for entry in os.scandir(root / folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{root / folder} cannot be listed ({error.strerror})") from None
    return there


def _file_stem(path: str, split: Split) -> str:
    """An image's file name without what all of its kind end with."""
    file = path.rpartition("/")[2]
    suffixes = (pattern.suffix for pattern in split.images)
    return _plain(file.removesuffix(next(end for end in suffixes if file.endswith(end))))


def _stem(name: str, split: Split) -> str:
    """The name of a sample, unique in all splits, which can be a part of a file name."""
    shared = any(pattern.has_split for pattern in split.images)
    full = f"{split.name}/{name}" if shared else name
    return _plain(full.replace("/", _SLASH))


def _plain(stem: str) -> str:
    """`stem`, or what stands for it where it could not be a part of a file name on every system:
    what is not printable as %XX, the end of a long name as a digest of it."""
    odd = [not c.isprintable() or c in "\\:" or (c == "." and i == 0) for i, c in enumerate(stem)]
    if any(odd):
        stem = "".join(_percent(c) if is_odd else c for c, is_odd in zip(stem, odd, strict=True))
    if len(content := stem.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(content).hexdigest()[:16]
        stem = f"{content[: _LONGEST_NAME - 17].decode(errors='ignore')}~{digest}"
    return stem


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
