"""Folders of pseudo-labels: what is written comes back, and what does not fit is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories import SIZE, Bytes, noise, write_cityscapes, write_gta5, write_png
from trials import any_manifest
from uda.data.config import DataConfig, DomainConfig
from uda.data.pseudo_label_folder import (
    MANIFEST,
    Manifest,
    PseudoLabelFolder,
    PseudoLabelWriter,
    file_name,
    read_manifest,
)
from uda.data.sampling import batches
from uda.data.training import TrainingData, open_training_data
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError

STEMS = ("aachen_000000_000019", "bremen_000000_000019", "ulm_000005_000019")
MADE = any_manifest(STEMS, CITYSCAPES)
MADE.share_kept_per_class["train"] = None


def train_ids(seed: int) -> Bytes:
    """(H, W) train ids, all of them and 255."""
    ids = np.array([*range(19), IGNORE_INDEX], np.uint8)
    return np.random.default_rng(seed).choice(ids, SIZE)


def write_folder(folder: Path, manifest: Manifest = MADE) -> Path:
    with PseudoLabelWriter(folder) as writer:
        for seed, stem in enumerate(STEMS):
            writer.write(stem, train_ids(seed))
        writer.finish(manifest)
    return folder


def opened(
    folder: Path, stems: tuple[str, ...] = STEMS, *, subset: bool = False
) -> PseudoLabelFolder:
    return PseudoLabelFolder(folder, label_space=CITYSCAPES, stems=stems, subset=subset)


def refusal(folder: Path, stems: tuple[str, ...] = STEMS, *, subset: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        opened(folder, stems, subset=subset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    values = json.loads(path.read_text()) | changes
    values.pop("sha256", None)  # of what it was
    path.write_text(json.dumps(values))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [MANIFEST, *(f"{stem}_pseudo_trainIds.png" for stem in STEMS)]
    )
    assert read_manifest(folder) == MADE
    found = opened(folder)
    assert found.manifest == MADE
    for seed, stem in enumerate(STEMS):
        assert np.array_equal(np.asarray(found.read(stem, SIZE)), train_ids(seed))


def test_no_file_bears_a_name_that_promises_raw_ids() -> None:
    assert file_name("aachen_000000_000019") == "aachen_000000_000019_pseudo_trainIds.png"


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    (folder / MANIFEST).unlink()
    message = refusal(folder)
    assert (
        f"{folder / MANIFEST} does not exist: {folder} is not a folder of pseudo-labels" in message
    )
    assert "pseudo_label.py --restore-from" in message
    assert "does not exist" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", '{"id_space": ', "\xff"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "labels")
    (folder / MANIFEST).write_bytes(text.encode("latin-1"))
    assert f"{folder / MANIFEST} cannot be read (" in refusal(folder)


def test_a_manifest_with_other_fields_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    rewrite_manifest(folder, threshold="half")
    assert "manifest.json.threshold is 'half'; allowed: a finite number" in refusal(folder)
    rewrite_manifest(folder, threshold=0.5, note="by hand")
    assert "Manifest has fields" in refusal(folder)
    (folder / MANIFEST).write_text("[1, 2]")
    assert "Manifest has fields" in refusal(folder)


def test_another_id_space_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    rewrite_manifest(folder, id_space="labelIds")
    assert "id space is 'labelIds'; only 'trainIds' can be read" in refusal(folder)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    rewrite_manifest(folder, label_space="synthia16", classes=list(CITYSCAPES.classes[:16]))
    message = refusal(folder)
    assert "labels of synthia16 with 16 classes; the run learns cityscapes19 with 19" in message
    rewrite_manifest(folder, classes=list(reversed(CITYSCAPES.classes)))
    assert "19 classes; the run learns cityscapes19" in refusal(folder)


def test_a_target_image_without_a_pseudo_label_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    more = (*STEMS, "bonn_000000_000019", "aalen_000000_000019")
    message = refusal(folder, more)
    assert "2 target images have no pseudo-label, the first is aalen_000000_000019" in message
    assert "2 target images have no pseudo-label" in refusal(folder, more, subset=True)


def test_a_pseudo_label_without_a_target_image_is_refused_but_for_subsets(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    message = refusal(folder, STEMS[1:])
    assert f"1 pseudo-labels have no target image, the first is {STEMS[0]}" in message
    found = opened(folder, STEMS[1:], subset=True)
    assert np.array_equal(np.asarray(found.read(STEMS[1], SIZE)), train_ids(1))


@pytest.mark.parametrize("subset", [False, True])
def test_files_and_manifest_must_agree(tmp_path: Path, subset: bool) -> None:
    folder = write_folder(tmp_path / "labels")
    extra = write_png(folder / file_name("zwickau_000000_000019"), train_ids(0))
    message = refusal(folder, subset=subset)
    assert "1 files are not in the manifest, the first is zwickau_000000_000019" in message
    extra.unlink()
    (folder / file_name(STEMS[2])).unlink()
    message = refusal(folder, subset=subset)
    assert f"1 files of the manifest are missing, the first is {STEMS[2]}" in message


@pytest.mark.parametrize("value", [19, 33, 254])
def test_a_value_that_is_no_train_id_is_refused(tmp_path: Path, value: int) -> None:
    folder = write_folder(tmp_path / "labels")
    labels = train_ids(0)
    labels[1, 1] = value
    write_png(folder / file_name(STEMS[0]), labels)
    with pytest.raises(
        InputError, match=f"{STEMS[0]}.* value {value} is not a train id; allowed: 0"
    ):
        opened(folder).read(STEMS[0], SIZE)


def test_files_that_do_not_fit_the_image_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    with pytest.raises(InputError, match="labels are 16x8, the image is 32x16"):
        opened(folder).read(STEMS[0], (16, 32))
    write_png(folder / file_name(STEMS[0]), noise(0))
    with pytest.raises(InputError, match="mode RGB cannot hold label ids"):
        opened(folder).read(STEMS[0], SIZE)
    (folder / file_name(STEMS[0])).write_bytes(b"nothing")
    with pytest.raises(InputError, match=f"{STEMS[0]}.* cannot be decoded"):
        opened(folder).read(STEMS[0], SIZE)


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with PseudoLabelWriter(tmp_path / "labels") as writer:
            writer.write(STEMS[0], train_ids(0))
            raise InputError("an image cannot be read")

    with pytest.raises(InputError, match="an image cannot be read"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_it_is_not_finished(tmp_path: Path) -> None:
    with PseudoLabelWriter(tmp_path / "labels") as writer:
        writer.write(STEMS[0], train_ids(0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    write_png(tmp_path / ".labels.uda-partial" / file_name("stale"), train_ids(0))
    opened(write_folder(tmp_path / "labels"))
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_an_existing_folder_is_refused_unless_empty(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"labels exists already: remove it or choose another"):
        write_folder(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="file exists already"):
        write_folder(file)
    (tmp_path / "empty").mkdir()
    opened(write_folder(tmp_path / "empty"))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    def write_twice() -> None:
        with PseudoLabelWriter(tmp_path / "labels") as writer:
            writer.write("00001", train_ids(0))
            writer.write("00001", train_ids(1))

    with pytest.raises(InputError, match="two images are called 00001"):
        write_twice()
    assert list(tmp_path.iterdir()) == []


def student_data(root: Path, *, first: int | None = None) -> TrainingData:
    data = DataConfig(
        root=str(root),
        source=DomainConfig(datasets=("gta5",), size=SIZE),
        target=DomainConfig(datasets=("cityscapes",), size=SIZE, first=first),
        pseudo_labels=str(root / "labels"),
        crop=SIZE,
    )
    return open_training_data(data, seed=0, evaluated="cityscapes")


def test_a_student_gets_the_pseudo_labels_of_its_images(tmp_path: Path) -> None:
    write_gta5(tmp_path)
    write_cityscapes(tmp_path, labeled=False, stems=STEMS)
    write_folder(tmp_path / "labels")
    training = student_data(tmp_path)
    assert training.supervision == "pseudo"
    seen = set()
    for batch in batches(training.dataset, batch_size=1, first_step=0, steps=3, workers=0):
        assert batch.target_pseudo_labels is not None
        (name,) = batch.target_names
        seed = STEMS.index(name.removeprefix("cityscapes/"))
        assert np.array_equal(batch.target_pseudo_labels[0].numpy(), train_ids(seed))
        assert np.array_equal(batch.target_images[0].numpy(), noise(seed).transpose(2, 0, 1))
        seen.add(seed)
    assert seen == {0, 1, 2}


def test_a_subset_of_the_target_may_use_the_labels_of_all_of_it(tmp_path: Path) -> None:
    write_gta5(tmp_path)
    write_cityscapes(tmp_path, labeled=False, stems=STEMS)
    write_folder(tmp_path / "labels")
    assert len(student_data(tmp_path, first=2).dataset.target) == 2
    write_cityscapes(tmp_path, labeled=False, stems=("bonn_000000_000019",))
    with pytest.raises(InputError, match="1 target images have no pseudo-label"):
        student_data(tmp_path)


def test_labels_of_a_supervised_network_are_no_free_lunch(tmp_path: Path) -> None:
    write_gta5(tmp_path)
    write_cityscapes(tmp_path, labeled=False, stems=STEMS)
    write_folder(tmp_path / "labels", replace(MADE, supervision="ground truth (3 images)"))
    expected = "pseudo; labels made with: ground truth (3 images)"
    assert student_data(tmp_path).supervision == expected


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/b", "..", "", ".a", "C:x", "a\\b", "a\0b", "x" * 201]
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "home" / "labels")
    rewrite_manifest(folder, images=[*STEMS, name], image_count=4)
    assert "in images is not a valid image name" in refusal(folder)
    no_name = "is not a valid image name"
    with (
        pytest.raises(InputError, match=no_name),
        PseudoLabelWriter(tmp_path / "home" / "new") as writer,
    ):
        writer.write(name, train_ids(0))
    with pytest.raises(InputError, match=no_name):
        opened(write_folder(tmp_path / "home" / "other")).read(name, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_links_lead_to_files_of_the_folder_only(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    label, elsewhere = folder / file_name(STEMS[0]), tmp_path / "elsewhere.png"
    label.rename(elsewhere)
    label.symlink_to(elsewhere)
    assert f"{label} is a link that leads out of the folder: put the file in" in refusal(folder)
    elsewhere.rename(folder / "inside.png")
    label.unlink()
    label.symlink_to("inside.png")
    (tmp_path / "link").symlink_to(folder)
    assert opened(tmp_path / "link").read(STEMS[0], SIZE).size == (SIZE[1], SIZE[0])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image_count": 4}, "image_count is 4, and images names 3 different ones in 3 entries"),
        ({"images": [STEMS[0]] * 3}, "images names 1 different ones in 3 entries"),
        ({"threshold": 1.5}, "threshold is 1.5; allowed: 0 to 1"),
        ({"threshold": 10**400}, "threshold is 1000000000000000000000000000000000000000 ... 000"),
        ({"threshold": float("nan")}, "NaN is no number of JSON"),
        ({"share_kept": -1}, "a share is -1; allowed: 0 to 1"),
        ({"share_kept_per_class": {"road": 2}}, "a share is 2; allowed: 0 to 1"),
        (
            {"images": [["a"]]},
            "images is (['a'],); allowed: any number of text, separated by commas",
        ),
    ],
)
def test_odd_values_are_refused(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    folder = write_folder(tmp_path / "labels")
    rewrite_manifest(folder, **changes)
    assert complaint in refusal(folder)


@pytest.mark.parametrize("content", [b"[" * 10**5, b"1" * 10**4, b"\xff\xfe", b'{"a": "\xe4"}'])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_folder(tmp_path / "labels")
    (folder / MANIFEST).write_bytes(content)
    assert "manifest.json cannot be read (" in refusal(folder)


def test_a_manifest_without_an_end_is_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "labels")
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(2**40)  # takes no room on disk
    assert "manifest.json cannot be read (it has more than 67108864 bytes)" in refusal(folder)
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    assert "manifest.json cannot be read (it is a pipe or a device, not a file)" in refusal(folder)
