"""The check of the data: each kind of trouble is found, counted and explained, once."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factories import (
    CITYSCAPES_STEMS,
    SIZE,
    cityscapes_image,
    cityscapes_labels,
    noise,
    raw_labels,
    write_cityscapes,
    write_gta5,
    write_png,
)
from shells import CLASS_MIX, Shell
from tiny_runs import start_process, tiny_options
from trials import any_manifest
from uda.data.config import DataConfig, DomainConfig
from uda.data.datasets.cityscapes import CITYSCAPES as LAYOUT
from uda.data.doctor import file_facts
from uda.data.doctor.check import Report, check_data
from uda.data.doctor.contents import check_contents
from uda.data.doctor.file_facts import FactsCache, FileFacts, Job, Role
from uda.data.doctor.findings import Finding
from uda.data.doctor.listing import Listing, Wish, list_files_of
from uda.data.doctor.plan import Plan, plan_of_preset, plan_of_root
from uda.data.doctor.report_text import format_json, format_report
from uda.data.files import MAX_PIXELS, image_size, read_image
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_raw_labels
from uda.data.prediction_folder import check_files, pair_files
from uda.data.pseudo_label_folder import (
    MANIFEST,
    PseudoLabelFolder,
    PseudoLabelWriter,
    file_name,
)
from uda.data.registry import LAYOUTS, list_dataset
from uda.data.samples import KnownSplit, Sample
from uda.data.start_checks import check_some, count_remarks
from uda.data.training import open_training_data
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError

DRAWN = "toy_city.json"  # data below a folder with this file have no known counts
VAL_STEM = "munster_000000_000019"
COMMAND = "scripts/check_data.py"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """4 GTA5 images, and 4 of Cityscapes' train and 1 of its val, all labeled, nothing wrong."""
    root = tmp_path / "data"
    write_gta5(root)
    write_cityscapes(root)
    write_cityscapes(root, split="val", stems=(VAL_STEM,))
    write_png(cityscapes_image(root, VAL_STEM, "val"), noise(99))
    (root / DRAWN).write_text("{}")
    return root


def check(root: Path, plan: Plan | None = None, *, header_only: bool = False) -> Report:
    def progress(files: Iterator[Any], total: int) -> Iterable[Any]:
        return files

    cache = FactsCache(root / ".uda_check_cache.json")
    return check_data(
        plan or plan_of_root(root), root, cache,
        workers=2, header_only=header_only, progress=progress,
    )  # fmt: skip


def preset_plan(root: Path, **fields: object) -> Plan:
    """GTA5 to Cityscapes, scored on val."""
    data = DataConfig(
        source=DomainConfig(datasets=("gta5",), size=SIZE),
        target=DomainConfig(datasets=("cityscapes",), size=SIZE),
    )
    for name, value in fields.items():
        setattr(data, name, value)
    return plan_of_preset(data, root, dataset="cityscapes", split="val")


def the_only(report: Report) -> Finding:
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def summary(finding: Finding) -> tuple[str, str, str, int]:
    return finding.severity, finding.kind, finding.where, len(finding.items)


def header_of(path: Path, width: int, height: int, *, color: int = 2) -> Path:
    """A PNG of some bytes that claims a size; color: 0 gray, 2 RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    start = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    body = chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_nothing_is_found_where_nothing_is_wrong(root: Path) -> None:
    report = check(root)
    assert report.findings == []
    assert (report.files, report.files_read) == (18, 18)
    assert [(listing.wish.name, listing.images, seen.label_files, dict(seen.sizes))
            for listing, seen in report.sets] == [
        ("gta5 train", 4, 4, {SIZE: 4}),
        ("cityscapes train", 4, 4, {SIZE: 4}),
        ("cityscapes val", 1, 1, {SIZE: 1}),
    ]  # fmt: skip


def test_pixels_are_counted_by_class(root: Path) -> None:
    raw = np.concatenate([raw_labels(index) for index in range(1, 5)])
    ids = CITYSCAPES.to_train_ids(raw, "drawn")
    expected = [int((ids == train_id).sum()) for train_id in range(19)]
    assert check(root).sets[0][1].pixels.tolist() == expected


@pytest.mark.parametrize(("known", "severity"), [((4,), None), ((3, 4), None), ((3,), "note"),
                         ((5,), "problem"), ((3, 5), "problem")])  # fmt: skip
def test_a_count_is_compared_with_the_known_ones(
    root: Path, known: tuple[int, ...], severity: str | None
) -> None:
    wish = Wish(layout=replace(LAYOUT, known={"train": KnownSplit(known)}), split="train")
    found = list_files_of(wish, root, genuine=True)[1]
    assert [(finding.kind, finding.severity) for finding in found] == (
        [] if severity is None else [("count", severity)]
    )


def test_the_known_counts_are_the_published_ones(root: Path) -> None:
    write_gta5(root, 2, folder="CycleGTA5")
    write_cityscapes(root, split="train_extra", labeled=False, stems=("bonn_000000_000019",))
    write_cityscapes(root, split="test", labeled=False, stems=("bonn_000001_000019",))
    write_png(cityscapes_image(root, "bonn_000000_000019", "train_extra"), noise(97))
    write_png(cityscapes_image(root, "bonn_000001_000019", "test"), noise(98))
    assert check(root).findings == []  # drawn
    (root / DRAWN).unlink()
    assert [f"{finding.where}: {finding.text}" for finding in check(root).findings] == [
        "gta5 train: 4 images; the data set has 24966",
        "cyclegta5 train: 2 images; the data set has 22061 or 24966",
        "cityscapes train: 4 images; the data set has 2975",
        "cityscapes train_extra: 1 images; the data set has 19998",
        "cityscapes val: 1 images; the data set has 500",
        "cityscapes test: 1 images; the data set has 1525",
    ]


def test_images_without_labels(root: Path) -> None:
    for name in ("00002", "00004"):
        (root / "GTA5/labels" / f"{name}.png").unlink()
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "no labels", "gta5 train", 2)
    assert finding.items[0].name == str(root / "GTA5/images/00002.png")


def test_only_some_labels_are_needed(root: Path) -> None:
    """README: a target is trained on without labels; to be scored, it has them."""
    shutil.rmtree(root / "Cityscapes/gtFine/train")
    finding = the_only(check(root))
    assert summary(finding) == ("note", "no labels", "cityscapes train", 0)
    assert check(root, preset_plan(root)).findings == []
    wanted = check(root, preset_plan(root, target_ground_truth=True))
    assert summary(the_only(wanted)) == ("problem", "no labels", "cityscapes train", 4)
    shutil.rmtree(root / "Cityscapes/gtFine/val")
    found = the_only(check(root, preset_plan(root)))
    assert summary(found) == ("problem", "no labels", "cityscapes val", 1)


def test_labels_without_image(root: Path) -> None:
    (root / "GTA5/images/00003.png").unlink()
    assert summary(the_only(check(root))) == ("note", "no image", "gta5 train", 1)


def test_a_translation_of_a_part_may_have_all_labels(root: Path) -> None:
    write_gta5(root, 2, folder="CycleGTA5")
    shutil.rmtree(root / "CycleGTA5/labels")
    (root / "CycleGTA5/labels").symlink_to(root / "GTA5/labels")
    report = check(root)
    assert report.findings == []
    assert (report.files, report.files_read) == (22, 20)  # the linked labels are read once


def test_labels_of_another_size_can_be_left_out_as_advised(root: Path) -> None:
    for name in ("00002", "00003"):
        write_png(root / "GTA5/labels" / f"{name}.png", raw_labels(0, (9, 16)))
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "size", "gta5 train", 2)
    path = root / "GTA5/labels/00002.png"
    assert str(finding.items[0]) == f"gta5/00002 ({path}: 16x9, its image 16x8)"
    advice = "gta5/00002,gta5/00003"
    assert finding.fix.endswith(f"--set data.exclude={advice}")
    excluding = preset_plan(root, exclude=tuple(advice.split(",")))
    assert check(root, excluding).findings == []


def test_files_that_cannot_be_used(root: Path) -> None:
    images, labels = root / "GTA5/images", root / "GTA5/labels"
    content = (images / "00001.png").read_bytes()
    (images / "00001.png").write_bytes(content[: len(content) // 2])
    (images / "00002.png").write_bytes(b"not a picture")
    header_of(images / "00003.png", 100_000, 100_000)
    write_png(labels / "00004.png", noise(0))
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "unreadable", "gta5 train", 4)
    reasons = ["truncated", "cannot identify", "Image size (10000000000 pixels)", "mode RGB"]
    for item, reason in zip(finding.items, reasons, strict=True):
        assert reason in item.name
    fast = the_only(check(root, header_only=True))
    assert summary(fast) == ("problem", "unreadable", "gta5 train", 3)  # what the header tells


def test_values_outside_the_space(root: Path) -> None:
    labels = raw_labels(0)
    labels[0, :3] = (35, 200, 255)
    path = write_png(cityscapes_labels(root, CITYSCAPES_STEMS[1]), labels)
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "values", "cityscapes train", 1)
    assert str(finding.items[0]) == f"{path} (values 35, 200, 255)"


@pytest.mark.parametrize("ignored", [True, False])
def test_train_ids_under_labelids_names(root: Path, ignored: bool) -> None:
    """With a 255 among them, one file gives itself away; without, the whole set does."""
    stems = CITYSCAPES_STEMS[1:3] if ignored else CITYSCAPES_STEMS
    for seed, stem in enumerate(stems):
        ids = np.random.default_rng(seed).integers(0, 19, SIZE, dtype=np.uint8)
        ids[0, 0] = 255 if ignored else 0
        write_png(cityscapes_labels(root, stem), ids)
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "train ids", "cityscapes train", len(stems))


def test_few_labels_need_not_have_all_classes(root: Path) -> None:
    write_png(cityscapes_labels(root, VAL_STEM, "val"), np.full(SIZE, 26, np.uint8))
    finding = the_only(check(root))
    assert summary(finding) == ("note", "empty classes", "cityscapes val", 18)
    assert "car" not in [item.name for item in finding.items]


def test_labels_that_teach_nothing(root: Path) -> None:
    path = write_png(root / "GTA5/labels/00002.png", np.zeros(SIZE, np.uint8))
    finding = the_only(check(root))
    assert summary(finding) == ("note", "blank", "gta5 train", 1)
    assert finding.items[0].name == str(path)


def contents(
    pixels: dict[str, float], *, files: int = 100, genuine: bool = True
) -> list[tuple[str, str, list[str]]]:
    """What is found in so many label files with the expected shares, but for `pixels`."""
    shares = dict(zip(CITYSCAPES.classes, LAYOUT.class_shares, strict=True)) | pixels
    raw_ids = dict(zip(CITYSCAPES.classes, CITYSCAPES.trained_raw_ids, strict=True))
    counts = {raw_ids[name]: round(10**7 * share) for name, share in shares.items() if share}
    samples = []
    facts: dict[tuple[Path, Role], FileFacts] = {}
    for index in range(files):
        image, labels = Path(f"{index}.png"), Path(f"{index}_labels.png")
        samples.append(Sample("cityscapes", str(index), image, labels))
        keys: list[tuple[Path, Role]] = [(image, "image"), (labels, "labels")]
        facts |= {key: FileFacts(SIZE, counts if key[1] == "labels" else {}) for key in keys}
    listing = Listing(
        wish=Wish(layout=LAYOUT, split="train"),
        images=files,
        known=LAYOUT.known["train"] if genuine else None,
        samples=tuple(samples),
    )
    found = check_contents(listing, facts)[1]
    return [(f.severity, f.kind, [item.name for item in f.items]) for f in found]


def test_classes_are_about_as_frequent_as_expected() -> None:
    assert contents({}) == []
    assert contents({"train": 20 * 0.0023, "wall": 0.0066 / 20}) == []
    odd = {"train": 40 * 0.0023, "wall": 0.0066 / 40}
    assert contents(odd) == [("problem", "class shares", ["wall", "train"])]
    assert contents(odd, files=99) == []
    assert contents(odd, genuine=False) == []
    assert contents({"bus": 0.0}) == [("problem", "empty classes", ["bus"])]
    assert contents({"bus": 0.0}, files=99) == [("note", "empty classes", ["bus"])]


def test_expected_shares_are_of_all_pixels() -> None:
    known = [layout for layout in LAYOUTS.values() if layout.class_shares]
    assert len(known) >= 3
    for layout in known:
        assert len(layout.class_shares) == layout.label_space.num_classes
        assert sum(layout.class_shares) == pytest.approx(1, abs=0.02)


def test_one_name_of_two_images(root: Path) -> None:
    stem = CITYSCAPES_STEMS[0]
    for path in (cityscapes_image(root, stem), cityscapes_labels(root, stem)):
        copy = path.parent.parent / "ulm" / path.name
        shutil.copy(path, copy)
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "names", "cityscapes train", 1)
    assert finding.items[0].name == stem


def test_names_that_differ_in_case_only(root: Path) -> None:
    write_cityscapes(root, stems=("Aachen_000000_000019",))
    finding = the_only(check(root))
    assert summary(finding) == ("note", "case", "cityscapes train", 1)
    assert finding.items[0].name == "Aachen_000000_000019, aachen_000000_000019"


def test_one_image_in_two_splits(root: Path) -> None:
    write_cityscapes(root, split="val", stems=CITYSCAPES_STEMS[:2])
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "names", "all splits", 2)
    assert str(finding.items[0]) == f"cityscapes/{CITYSCAPES_STEMS[0]} (train and val)"


def test_what_a_mac_leaves_is_no_image(root: Path) -> None:
    """It was listed as an image without a label, and every run was refused."""
    (root / "GTA5/images/._00001.png").write_bytes(b"\0\5\26\7")
    (root / "GTA5/images/Thumbs.db").write_bytes(b"")
    finding = the_only(check(root))
    assert summary(finding) == ("note", "left by a Mac", "gta5 train", 1)
    assert len(list_dataset(root, "gta5", "train", labeled=True)) == 4


def test_pictures_that_nothing_reads(root: Path) -> None:
    write_png(root / "GTA5/images/images/00009.png", noise(9))
    (root / "GTA5/images/00008.JPG").write_bytes(b"")
    assert summary(the_only(check(root))) == ("note", "not read", "gta5 train", 2)


def test_folders_in_another_layout(root: Path) -> None:
    (root / "GTA5/images").rename(root / "GTA5/Images")
    finding = the_only(check(root))
    assert summary(finding) == ("problem", "missing", "gta5 train", 0)
    assert "expected images/*.png and labels/*.png" in finding.text


# Presets


def test_a_preset_is_checked_for_what_it_reads(root: Path) -> None:
    shutil.rmtree(root / "Cityscapes/gtFine/train")
    write_cityscapes(root, split="test", labeled=False, stems=("bonn_000001_000019",))
    (root / "GTA5/images/00004.png").write_bytes(b"")
    part = DomainConfig(datasets=("gta5",), first=3, size=SIZE)
    report = check(root, preset_plan(root, source=part))
    assert report.findings == []
    assert [(listing.wish.name, len(listing.samples)) for listing, _ in report.sets] == [
        ("gta5 train", 3), ("cityscapes train", 4), ("cityscapes val", 1),
    ]  # fmt: skip
    joined = DomainConfig(datasets=("cityscapes",), splits=("train", "val"), first=5, size=SIZE)
    found = check(root, preset_plan(root, source=part, target=joined))
    assert [len(listing.samples) for listing, _ in found.sets] == [3, 4, 1]


def test_images_that_a_preset_enlarges(root: Path) -> None:
    source = DomainConfig(datasets=("gta5",), size=(9, 16))
    finding = the_only(check(root, preset_plan(root, source=source)))
    assert summary(finding) == ("note", "enlarged", "gta5 train", 4)
    assert finding.text.startswith("4 images are smaller than the 16x9 ")


# Pseudo-labels


def write_pseudo_labels(folder: Path, stems: tuple[str, ...] = CITYSCAPES_STEMS) -> Path:
    """A quarter of all pixels has no label."""
    with PseudoLabelWriter(folder) as writer:
        for seed, stem in enumerate(stems):
            ids = np.random.default_rng(seed).integers(0, 19, SIZE, dtype=np.uint8)
            ids[: SIZE[0] // 4] = 255
            writer.write(stem, ids)
        writer.finish(any_manifest(stems, CITYSCAPES))
    return folder


def pseudo_findings(root: Path, folder: Path, **fields: object) -> list[tuple[str, str, int]]:
    """Of a preset that trains on the folder."""
    report = check(root, preset_plan(root, pseudo_labels=str(folder), **fields))
    assert {finding.where for finding in report.findings} <= {f"pseudo-labels {folder}"}
    return [(f.severity, f.kind, len(f.items)) for f in report.findings]


def test_pseudo_labels_without_fault(root: Path, tmp_path: Path) -> None:
    folder = write_pseudo_labels(tmp_path / "pseudo")
    assert pseudo_findings(root, folder) == []
    report = check(root, plan_of_root(root, [folder]))
    assert report.findings == []
    assert [len(own.files) for own in report.pseudo_labels] == [4]


def test_pseudo_labels_of_a_part(root: Path, tmp_path: Path) -> None:
    folder = write_pseudo_labels(tmp_path / "pseudo", CITYSCAPES_STEMS[:3])
    assert pseudo_findings(root, folder) == [("problem", "manifest", 1)]
    part = DomainConfig(datasets=("cityscapes",), first=3, size=SIZE)
    assert pseudo_findings(root, folder, target=part) == []
    finding = the_only(check(root, plan_of_root(root, [folder])))
    assert (finding.severity, finding.items[0].name) == ("note", CITYSCAPES_STEMS[3])


def test_pseudo_labels_that_disagree_with_their_manifest(root: Path, tmp_path: Path) -> None:
    folder = write_pseudo_labels(tmp_path / "pseudo")
    (folder / file_name(CITYSCAPES_STEMS[0])).unlink()
    shutil.copy(folder / file_name(CITYSCAPES_STEMS[1]), folder / file_name("extra_000000_000019"))
    shutil.copy(folder / file_name(CITYSCAPES_STEMS[1]), folder / ("._" + file_name("extra_0_0")))
    assert pseudo_findings(root, folder) == [("problem", "manifest", 1)] * 2


def test_pseudo_labels_that_were_changed(root: Path, tmp_path: Path) -> None:
    folder = write_pseudo_labels(tmp_path / "pseudo")
    write_png(folder / file_name(CITYSCAPES_STEMS[1]), np.full(SIZE, 26, np.uint8))
    write_png(folder / file_name(CITYSCAPES_STEMS[2]), np.full((9, 16), 3, np.uint8))
    found = pseudo_findings(root, folder)
    assert found == [("problem", "values", 1), ("problem", "size", 1), ("problem", "manifest", 0)]
    (folder / MANIFEST).unlink()
    assert pseudo_findings(root, folder) == [("problem", "manifest", 0)]


# The cache


def test_only_changed_files_are_read_again(root: Path) -> None:
    assert check(root).files_read == 18
    again = check(root)
    assert (again.files, again.files_read) == (18, 0)
    assert again.sets[0][1].pixels.sum() > 0
    path = root / "GTA5/labels/00002.png"
    write_png(path, np.full((9, 16), 7, np.uint8))
    found = check(root)
    assert found.files_read == 1
    assert the_only(found).kind == "size"
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert check(root).files_read == 1


def test_what_could_not_be_read_is_tried_again(root: Path) -> None:
    (root / "GTA5/images/00002.png").write_bytes(b"")
    check(root)
    assert check(root).files_read == 1


def test_a_header_does_not_stand_for_a_whole_image(root: Path) -> None:
    assert check(root, header_only=True).files_read == 18
    assert check(root, header_only=True).files_read == 0
    assert check(root).files_read == 9  # the images
    assert check(root, header_only=True).files_read == 0


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[" * 10**5, '{"format": "uda-files-1"}', '{"format": 1, "files": {}}',
     '{"format": "uda-files-1", "files": []}'],
)  # fmt: skip
def test_a_damaged_cache_is_written_anew(root: Path, content: str) -> None:
    (root / ".uda_check_cache.json").write_text(content)
    assert check(root).files_read == 18
    assert check(root).files_read == 0


def test_damaged_entries_are_not_believed(root: Path) -> None:
    check(root)
    path = root / ".uda_check_cache.json"
    stored = json.loads(path.read_text())
    for number, name in enumerate(stored["files"]):
        stamp = stored["files"][name][0]
        stored["files"][name] = [None, [stamp], [stamp, True, ["a", 1], {}], 5][number % 4]
    path.write_text(json.dumps(stored))
    assert check(root).files_read == 18


def test_an_interrupted_check_goes_on(root: Path) -> None:
    def interrupted(files: Iterator[Any], total: int) -> Iterable[Any]:
        for number, file in enumerate(files):
            if number == 5:
                raise KeyboardInterrupt
            yield file

    cache = FactsCache(root / ".uda_check_cache.json")
    with pytest.raises(KeyboardInterrupt):
        check_data(plan_of_root(root), root, cache, workers=2, progress=interrupted)
    assert check(root).files_read == 13


def test_a_file_replaced_while_it_is_read_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, look_at = root / "GTA5/labels/00002.png", file_facts.look_at

    def slow(job: Job) -> FileFacts:
        facts = look_at(job)
        if job.path == path:
            write_png(path, raw_labels(77, (9, 16)))
        return facts

    monkeypatch.setattr(file_facts, "look_at", slow)
    check(root)
    monkeypatch.undo()
    assert the_only(check(root)).kind == "size"


# The command


def run(shell: Shell, *arguments: object) -> tuple[int, str]:
    return shell.ended(COMMAND, *map(str, arguments))


@pytest.mark.slow
def test_the_command_in_a_process(root: Path, tmp_path: Path) -> None:
    (root / "GTA5/labels/00002.png").unlink()
    command = start_process(tmp_path, COMMAND, "--data-root", str(root), "--json", "found.json")
    out, error = command.communicate(timeout=60)
    assert (command.returncode, error) == (1, "")
    assert out.splitlines()[:4] == [
        "set               images  known  checked  label files  sizes",
        "gta5 train        4       -      4        3            16x8",
        "cityscapes train  4       -      4        4            16x8",
        "cityscapes val    1       -      1        1            16x8",
    ]
    path = root / "GTA5/images/00002.png"
    assert f"problem: gta5 train: 1 images have no label file\n  {path}\n  fix: " in out
    assert out.splitlines()[-4:] == [
        "severity  kind       set         files",
        "problem   no labels  gta5 train  1",
        "",
        "1 problems, 0 notes; 17 files, 0 of them unchanged since the last check",
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["problems"], found["files"], found["files_read"]) == (1, 17, 17)
    assert found["findings"][0]["items"] == [{"name": str(path), "remark": ""}]
    assert found["sets"][0]["sizes"] == {"16x8": 4}
    assert set(found["sets"][0]["pixels"]) == set(CITYSCAPES.classes)


def test_the_command_says_when_all_is_well(root: Path, shell: Shell) -> None:
    status, out = run(shell, "--data-root", root)
    assert status == 0
    assert "0 problems, 0 notes; 18 files, 0 of them unchanged" in out
    cache = shell.cwd / "no" / "cache.json"
    status, out = run(shell, "--data-root", root, "--fast", "--cache", cache)
    assert status == 0
    assert out.endswith("images by their headers only\n")


def test_a_cache_that_cannot_be_written_is_no_failure(root: Path, tmp_path: Path) -> None:
    cache = FactsCache(tmp_path / "no" / "cache.json")
    check_data(plan_of_root(root), root, cache, workers=1, progress=lambda files, total: files)
    assert cache.complaint == f"{cache.path} cannot be written (No such file or directory)"


def test_the_command_with_a_preset(toy_root: Path, shell: Shell) -> None:
    arguments = ("--data-root", toy_root, "--cache", shell.cwd / "cache.json")
    status, out = run(shell, *arguments, "--preset", "toy_class_mix")
    assert status == 0
    rows = [line.split()[:5] for line in out.splitlines()[1:4]]
    assert [row[:3] for row in rows] == [["gta5", "train", "6"], ["cityscapes", "train", "6"],
                                         ["cityscapes", "val", "3"]]  # fmt: skip


def test_names_that_are_no_text_are_reported(root: Path, shell: Shell) -> None:
    path = Path(os.fsdecode(os.fsencode(root / "GTA5/images") + b"/\xff.png"))
    path.write_bytes(b"")
    status, out = run(shell, "--data-root", root, "--json", shell.cwd / "found.json")
    assert status == 1
    assert r"\udcff.png" in out
    found = json.loads((shell.cwd / "found.json").read_text())
    assert [finding["kind"] for finding in found["findings"]] == ["no labels", "unreadable"]


def test_what_the_command_refuses(root: Path, shell: Shell) -> None:
    def refused(*arguments: object) -> str:
        return shell.refused(COMMAND, *map(str, arguments))

    assert "give --data-root DIR" in refused()
    assert "has none of GTA5/" in refused("--data-root", root / "GTA5")
    two = ("--pseudo-labels", root / "a", "--pseudo-labels", root / "b")
    options = ("--data-root", root, "--preset", "gc_640x360_b2_source_only")
    assert "a preset reads one folder" in refused(*options, *two)
    assert "there is no preset" in refused("--data-root", root, "--preset", "toy_clas_mix")
    assert "give --preset NAME" in refused("--data-root", root, "--set", "train.seed=1")
    assert "a folder that exists" in refused("--data-root", root, "--json", root / "no/a.json")


# What a run does of it when it starts


def test_a_run_warns_of_data_sets_that_are_not_complete(toy_root: Path, shell: Shell) -> None:
    root = shell.cwd / "data"
    shutil.copytree(toy_root, root)
    (root / DRAWN).unlink()
    out = shell.run("train_uda.py", *CLASS_MIX, *tiny_options(root), "--run", "warned")
    warnings = [line for line in out.splitlines() if line.startswith("warning:")]
    assert [line.split(",")[0] for line in warnings] == [
        "warning: cityscapes val: 3 images",
        "warning: gta5 train: 6 images",
        "warning: cityscapes train: 6 images",
    ]


def test_counts_of_a_part_are_nobodys_business(root: Path) -> None:
    source = DomainConfig(datasets=("gta5",), first=2)
    data = DataConfig(source=source, target=DomainConfig(datasets=("cityscapes",)))
    assert count_remarks(data, root, dataset="cityscapes", split="val") == []
    (root / DRAWN).unlink()
    remarks = count_remarks(data, root, dataset="cityscapes", split="val")
    assert [remark.split(":")[0] for remark in remarks] == ["cityscapes val", "cityscapes train"]


def test_a_run_looks_at_some_target_images(root: Path) -> None:
    data = DataConfig(root=str(root), target=DomainConfig(datasets=("cityscapes",)))
    odd = header_of(cityscapes_image(root, CITYSCAPES_STEMS[-1]), 20_000, 20_000)
    with pytest.raises(InputError, match=f"{odd} cannot be decoded"):
        open_training_data(data, seed=0, evaluated="cityscapes")


def test_a_run_looks_at_some_pseudo_labels(root: Path, tmp_path: Path) -> None:
    folder = write_pseudo_labels(tmp_path / "pseudo")
    samples = list_dataset(root, "cityscapes", "train", labeled=False)
    labels = PseudoLabelFolder(folder, label_space=CITYSCAPES, stems=CITYSCAPES_STEMS, subset=False)
    check_some(samples, labels, KnownFiles())
    write_png(folder / file_name(CITYSCAPES_STEMS[0]), np.full(SIZE, 26, np.uint8))
    with pytest.raises(InputError, match="value 26 is not a train id"):
        check_some(samples, labels, KnownFiles())


# Pictures that would take all memory


@pytest.mark.parametrize("size", [(100_000, 100_000), (20_000, 20_000), (12_000, 12_000)])
def test_a_picture_too_large_to_decode_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """Two are beyond Pillow's limit, the third is one that it would warn of."""
    color = header_of(tmp_path / "color.png", *size)
    gray = header_of(tmp_path / "gray.png", *size, color=0)
    for read, path in ((read_image, color), (read_raw_labels, gray), (image_size, gray)):
        with pytest.raises(InputError) as refusal:
            read(path)
        message = str(refusal.value)
        assert message.startswith(f"{path} cannot be decoded (")
        assert "allowed: as many as 16384x8192 has): replace the file" in message


def test_predictions_too_large_to_decode_are_refused(tmp_path: Path) -> None:
    stem = CITYSCAPES_STEMS[0]
    labels = write_png(cityscapes_labels(tmp_path, stem), raw_labels(0))
    (tmp_path / "predicted").mkdir()
    prediction = header_of(tmp_path / "predicted" / f"{stem}.png", 20_000, 20_000, color=0)
    prediction.with_name(f"._{stem}.png").write_bytes(b"")  # no second file of the image
    labels.with_name(f"._{labels.name}").write_bytes(b"")  # no label file without a prediction
    pairs, strays = pair_files(prediction.parent, tmp_path / "Cityscapes/gtFine")
    assert ([pair.prediction for pair in pairs], strays) == ([prediction], [])
    with pytest.raises(InputError, match="allowed: as many as"):
        check_files(pairs)


def test_the_largest_picture_is_not_refused(tmp_path: Path) -> None:
    path = header_of(tmp_path / "image.png", MAX_PIXELS, 1)
    assert image_size(path) == (1, MAX_PIXELS)
    with pytest.raises(InputError, match="allowed: as many as"):
        image_size(header_of(path, MAX_PIXELS + 1, 1))


def test_how_many_images_show_each_class(root: Path) -> None:
    report = check(root)
    sets = {one["name"]: one for one in json.loads(format_json(report))["sets"]}
    expected = np.zeros(19, int)
    for sample in list_dataset(root, "gta5", "train", labeled=True):
        assert sample.labels is not None
        with Image.open(sample.labels) as labels:
            train_ids = CITYSCAPES.to_train_ids(np.asarray(labels), "")
        expected += np.bincount(train_ids.ravel(), minlength=256)[:19] > 0
    shown = sets["gta5 train"]["images_with_class"]
    assert list(shown.values()) == expected.tolist()
    assert sum(shown.values()) > 0
    row = next(line for line in format_report(report).splitlines() if line.startswith("road"))
    assert str(shown["road"]) in row.split()
